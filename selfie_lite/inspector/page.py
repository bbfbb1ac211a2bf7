"""The inspector alone, as a page: Voilà serves it from this very process, to this machine only, behind a token."""

import errno
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from voila.app import Voila

from selfie_lite.errors import SelfieLiteError, require_number

PORT, NEXT = 8866, 50  # where the search for a free one begins, and how many it looks at
ENDS = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
KERNEL = "selfie-lite-inspector"
WORDS = """<main>

# What belongs where?

Some patches of an image are cut out, and a network has learned to say which patch belongs in which hole. Put them back
yourself; then see what the network believes, and where it looks.

</main>
<style>
@media (prefers-color-scheme: dark) {
  :root, body, #rendered_cells > div { background: #161616 !important; }
  main :is(h1, p) { color: #ececec; }
}
</style>"""
MAX_MESSAGE = 100_000_000  # bytes; or no upload above 10 MB


class Page(Voila):
    """Voilà, which says where it is once it is there."""

    opened: Callable[[], Any]

    def launch_browser(self) -> None:  # called when the port is taken and answers
        self.opened()


def serve(call: str, port: int | None, browser: bool, say: Callable[[str], None]) -> None:
    """Serve a page that shows what `call` makes, until Ctrl-C, SIGTERM or SIGHUP; kernels end with it.

    Args:
        call: a line of Python.
        port: of the page, 0 for any free one; None for the first free one from 8866.
        browser: open one.
        say: told the address.

    Raises:
        SelfieLiteError: for a port that is taken, not allowed, or none.
    """
    port, token = choose_port(port), secrets.token_urlsafe(24)
    address = f"http://localhost:{port}/?token={token}"

    def opened() -> None:
        say(f"the inspector is at {address} while this runs; Ctrl-C ends it")
        if browser:
            webbrowser.open(address, new=2)

    with _ends_like_an_exit(), tempfile.TemporaryDirectory(prefix="selfie-lite-inspector-") as folder:
        notebook = _write_notebook(Path(folder), call)
        page = Page.instance(token=token, open_browser=True, port=port, port_retries=0, ip="localhost")
        page.opened = opened
        page.tornado_settings = {
            "websocket_max_message_size": MAX_MESSAGE,
            "allow_remote_access": False,  # Voilà allows it; a page elsewhere must not reach this one by another name
            "local_hostnames": ["localhost"],
        }
        words = [str(notebook), "--show_tracebacks=False", "--Voila.log_level=WARN"]
        words += [f"--MappingKernelManager.cull_{what}=60" for what in ("interval", "idle_timeout")]  # of closed pages
        page.initialize(words)
        for number in ENDS:
            signal.signal(number, page._handle_signal_stop)
        page.start()


def choose_port(port: int | None) -> int:
    """`port`, if it is free; the first free one from 8866 for None, any free one for 0.

    Raises:
        SelfieLiteError: if it is taken, not allowed, or no port.
    """
    if port == 0:
        with socket.create_server(("localhost", 0)) as free:
            return free.getsockname()[1]
    for number in range(PORT, PORT + NEXT) if port is None else ():
        if not _why_not(number):
            return number
    if port is None:
        raise SelfieLiteError(f"the ports {PORT} to {PORT + NEXT - 1} are all taken: name another with --port.")
    require_number("--port", port, 1, 2**16 - 1, hint=" 0 stands for any free one.")
    if why := _why_not(port):
        raise SelfieLiteError(f"port {port} {why}: name another with --port, or 0 for any free one.")
    return port


def _why_not(port: int) -> str:
    """Why this port of localhost cannot be had, by any of its addresses; "" if it can."""
    for family, _, _, _, address in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM):
        try:
            socket.create_server(address[:2], family=family).close()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return "is taken, perhaps by another inspector"
            if error.errno in (errno.EACCES, errno.EPERM):
                return "is kept for the system"
    return ""


def _write_notebook(folder: Path, call: str) -> Path:
    """Two cells, to be run by the Python that runs this, whatever kernels are installed; in a folder of this process,
    so that two pages at once have nothing in common."""
    specification = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                     "display_name": "Python 3", "language": "python"}  # fmt: skip
    kernel = folder / "kernels" / KERNEL
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps(specification))
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("JUPYTER_PATH")]))
    source = f"import os\n\nos.chdir({str(Path.cwd())!r})\nfrom selfie_lite.inspector import PatchInspector\n\n{call}"
    metadata = {"kernelspec": {"name": KERNEL, "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_markdown_cell(WORDS), nbformat.v4.new_code_cell(source)]
    notebook = folder / "inspector.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), notebook)
    return notebook


@contextmanager
def _ends_like_an_exit() -> Iterator[None]:
    """A signal before Voilà has its own handler ends this as an exit does, the folder included."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
