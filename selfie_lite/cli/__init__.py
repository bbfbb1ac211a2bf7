"""The command line: its commands stand in `base.COMMANDS`, one file a subject, and are imported when asked for."""

import os
import sys

import click

from selfie_lite.cli.base import app, err
from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import is_full, words_of


def main() -> None:
    """Run the command line; what a user can mend is one sentence, never a traceback."""
    try:
        code = app(prog_name="selfie-lite", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:
        code, said = _in_words(error)
        if said is None:
            raise
        if said and not (isinstance(error, SelfieLiteError | click.ClickException) and _others_say_it()):
            err.print(said, markup=False)
    if isinstance(code, int) and code:
        sys.exit(code)


def _in_words(error: BaseException) -> tuple[int, str | None]:
    """Exit code and sentence for what may end a command; no sentence for what only a developer can mend."""
    if isinstance(error, click.ClickException):
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "selfie-lite"
        return 2, f"error: {error.format_message()}\n{where} --help tells more."
    if isinstance(error, SelfieLiteError):
        return 2, f"error: {error}"
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return 130, "stopped; nothing half-made was kept."
    if isinstance(error, MemoryError):
        return 2, "error: the memory of this machine is full: a smaller batch or image size, or fewer workers."
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("selfie_lite"):
        install = f"{sys.executable} -m pip install 'selfie-lite[notebooks]'"  # which has the library's own needs too
        return 2, f"error: this command needs {error.name.partition('.')[0]}, which is not installed: {install}"
    if isinstance(error, BrokenPipeError):  # whoever read the output has left, head say: nothing more to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1, ""
    if is_full(error):
        return 2, f"error: the disk is full, or a quota is ({error}). Make room, or write elsewhere."
    if isinstance(error, OSError) and error.errno is not None:
        return 2, f"error: {words_of(error)}"
    if isinstance(error, Exception):
        try:
            import selfie_lite.public  # noqa: F401
        except ImportError as mismatch:  # of torch and torchvision
            return 2, f"error: {mismatch}"
    if isinstance(error, OSError):
        return 2, f"error: {words_of(error)}"
    return 1, None


def _others_say_it() -> bool:
    """Whether this is one of several processes of torchrun, and not the first: all meet the same mistake."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0"
