"""The command line: selfie-lite walkthrough | pretrain | finetune | evaluate | sweep | compare | export | inspect |
data | bench."""

import os
import re
import sys
from importlib.metadata import PackageNotFoundError, requires

import click

from selfie_lite.cli import bench, data, evaluation, inspect, training, workbook  # noqa: F401  they add their commands
from selfie_lite.cli.base import app, err
from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import is_full, words_of

IMPORTED_AS = {"IPython": "ipython", "yaml": "pyyaml", "PIL": "pillow", "sklearn": "scikit-learn"}


def main() -> None:
    """Run the command line; what a user can mend is one sentence, never a traceback."""
    try:
        code = app(prog_name="selfie-lite", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:
        code, said = _in_words(error)
        if said is None:
            raise
        if not (isinstance(error, SelfieLiteError | click.ClickException) and _others_say_it()):
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
    if isinstance(error, ModuleNotFoundError) and (extra := _extra_of(error.name or "")):
        return 2, (
            f"error: this command needs {error.name}, which is not installed: "
            f"{sys.executable} -m pip install 'selfie-lite[{extra}]'"
        )
    if is_full(error):
        return 2, f"error: the disk is full, or a quota is ({error}). Make room, or write elsewhere."
    if isinstance(error, OSError):
        return 2, f"error: {words_of(error)}"
    return 1, None


def _others_say_it() -> bool:
    """Whether this is one of several processes of torchrun, and not the first: all meet the same mistake."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0"


def _extra_of(module: str) -> str | None:
    """The extra that brings a module, if one does."""
    package = IMPORTED_AS.get(module.split(".")[0], module.split(".")[0]).lower()
    try:
        lines = requires("selfie-lite") or []
    except PackageNotFoundError:
        return None
    for line in lines:
        found = re.match(r"([\w-]+).*extra == ['\"](\w+)['\"]", line)
        if found and found[1].lower().replace("-", "_") == package.replace("-", "_"):
            return found[2]
    return None
