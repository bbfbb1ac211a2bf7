"""Read one notebook, and run it through papermill. Jupyter's packages are imported when they
are needed, for every notebook imports what stands beside this."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfie_lite.errors import SelfieLiteError
from selfie_lite.files import disk_errors_in_words, locked, whole_file, words_of
from selfie_lite.workbook.pages import write_html

if TYPE_CHECKING:
    from nbformat import NotebookNode


@dataclass
class Outcome:
    """What became of one notebook."""

    notebook: str
    seconds: float
    ok: bool
    error: str = ""  # where and what, in plain words


def read_notebook(path: Path) -> NotebookNode:
    """A notebook that ours or others wrote.

    Raises:
        SelfieLiteError: if it is not there, no notebook, cut off, or has the marks of a merge conflict.
    """
    import nbformat

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SelfieLiteError(f"{path} cannot be read ({words_of(error)}).") from None
    except UnicodeDecodeError:
        raise SelfieLiteError(f"{path} is no notebook: it is not text.") from None
    if re.search(r"^(<{7} |>{7} |={7}\r?$)", text, re.MULTILINE):
        raise SelfieLiteError(f"{path} has the marks of a merge conflict (<<<<<<< and >>>>>>>): settle it first.")
    try:
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # whatever stands in the file
        said = str(error).strip().split("\n")[0][:120] if text.strip() else "it is empty"
        raise SelfieLiteError(f"{path} is no notebook, or damaged: {said}") from None
    return notebook


def run_notebook(path: Path, executed: Path, values: dict[str, object], show_progress: bool = False) -> Outcome:
    """Run one notebook in the caller's folder, with this Python, into the file `executed`, and write that as HTML too;
    an error ends the notebook, not the caller. What stood there stays until the new one has ended.

    Args:
        values: of its parameters; those that it does not have are passed over.

    Raises:
        SelfieLiteError: if it is no notebook, or if `executed` is a file of another kind.
        KeyboardInterrupt: after Ctrl-C, when the kernel has ended; nothing is written then.
    """
    import nbformat

    known = parameters_of(path)
    refuse_to_replace(executed, path)
    start = time.perf_counter()
    with whole_file(executed) as work:
        error = _execute(path, work, {name: value for name, value in values.items() if name in known}, show_progress)
        if work.is_file():
            notebook = nbformat.read(work, as_version=4)
            notebook.metadata["papermill"] |= {"input_path": str(path), "output_path": str(executed)}
        else:  # no kernel: what was wrong is kept instead
            notebook = read_notebook(path)
            notebook.metadata["papermill"] = {"exception": True}
        nbformat.write(notebook, work)
    write_html(executed)
    return Outcome(executed.stem, round(time.perf_counter() - start, 1), not error, error and f"{executed}{error}")


def parameters_of(path: Path) -> dict[str, dict]:
    """{name: what papermill says of it} of a notebook's parameters.

    Raises:
        SelfieLiteError: as `read_notebook`.
    """
    import papermill

    read_notebook(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return papermill.inspect_notebook(path)


def refuse_to_replace(executed: Path, source: Path) -> None:
    """Only what papermill has run may be replaced, and only its pages.

    Raises:
        SelfieLiteError: if `executed`, or the page beside it, is anything else.
    """
    if executed.exists():
        try:
            ours = "papermill" in read_notebook(executed).metadata and not executed.samefile(source)
        except SelfieLiteError:
            ours = False  # cut off or of another kind: nobody can tell
        if not ours:
            raise SelfieLiteError(f"{executed} is there, and no notebook that a run has written: choose another --out.")
    page = executed.with_suffix(".html")
    if page.exists() and not executed.exists():
        raise SelfieLiteError(f"{page} is there, and not written by a run: choose another --out.")


@contextmanager
def folder_of_runs(folder: Path, what: str) -> Iterator[None]:
    """In the block the folder is there, and this process alone writes to it; SIGTERM does what Ctrl-C does.

    Args:
        what: a walkthrough or a sweep, for the refusal.

    Raises:
        SelfieLiteError: if another process is writing to it, or it cannot be written.
    """

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    with disk_errors_in_words(folder, "What was finished is kept."):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise SelfieLiteError(f"{folder} is a file, not a folder: choose another --out.") from None
        with locked(folder, f"another {what} is writing to {folder}: wait for it, or choose another --out."):
            before = signal.signal(signal.SIGTERM, interrupt)
            try:
                yield
            finally:
                signal.signal(signal.SIGTERM, before)


def _execute(path: Path, work: Path, values: dict[str, object], show_progress: bool) -> str:
    """Run it; gives what went wrong. In a thread of its own: there nbclient cannot take the signals for itself, which
    would end this kernel and go on with the next."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    bar = {"desc": path.stem, "leave": False, "bar_format": "{desc} {bar:24} cell {n_fmt} of {total_fmt}, {elapsed}"}
    options = dict(
        kernel_name="python3", cwd=Path.cwd(), progress_bar=bar if show_progress else False,
        extra_arguments=["--IPKernelApp.log_level=50"],  # its warnings are not for the reader
        kernel_manager_class=_own_kernel(),
    )  # fmt: skip
    with warnings.catch_warnings(), ThreadPoolExecutor(1) as thread:
        warnings.simplefilter("ignore")  # of papermill's own
        running = thread.submit(papermill.execute_notebook, path, work, values, **options)
        try:
            running.result()
        except PapermillExecutionError as failure:
            return f", cell {failure.cell_index + 1}: {failure.ename}: {failure.evalue}"
        except (RuntimeError, OSError) as failure:  # the kernel died, or did not start
            return f": {failure}"
        finally:  # after an interrupt, which only this thread has seen
            while not running.done():
                _end_kernels()
                time.sleep(0.1)
            _KERNELS.clear()
    return ""


_KERNELS: list[Any] = []  # the managers of those that run


def _own_kernel() -> type:
    """A kernel manager that starts this very Python, whatever kernels are installed under the name python3."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class OwnKernel(AsyncKernelManager):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            _KERNELS.append(self)

        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python")

    return OwnKernel


def _end_kernels() -> None:
    """End the kernels that run, and the processes that they have started."""
    for kernel in _KERNELS:
        if pid := getattr(kernel.provisioner, "pid", None):
            with suppress(OSError):
                os.killpg(pid, signal.SIGKILL) if hasattr(os, "killpg") else os.kill(pid, signal.SIGTERM)
