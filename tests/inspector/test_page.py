"""`selfie-lite inspect` without a browser: ports, tokens, host names, signals."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tiny import run_command

from selfie_lite import SelfieLiteError
from selfie_lite.inspector.page import PORT, choose_port


@pytest.fixture(scope="module")
def two_pages(tmp_path_factory):
    """Two at once, in one folder that cannot be written; (process, address) of each."""
    folder = tmp_path_factory.mktemp("read_only")
    folder.chmod(0o500)
    processes = []
    for number in range(2):
        command = [sys.executable, "-m", "selfie_lite", "inspect", "--no-browser"]
        log = open(tmp_path_factory.mktemp("log") / str(number), "w")  # noqa: SIM115
        processes.append((subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True), log))
        address_in(*processes[-1])  # else both would look for a free port at the same time
    yield [(process, address_in(process, log)) for process, log in processes]
    for process, _ in processes:
        process.kill()
        process.wait()
    assert not list(folder.iterdir())


def address_in(process, log):
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if found := re.search(r"http://localhost:\d+/\?token=\S+", text := Path(log.name).read_text()):
            return found[0]
        time.sleep(0.1)
    raise AssertionError(text)


def answer(address, method="GET", **headers):
    """Code and text; redirections are followed."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers, method=method)) as got:
            return got.status, got.url, got.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, "", error.read().decode()


def kernels_of(process):
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True).stdout.splitlines()[1:]
    rows = [line.split(None, 2) for line in listed]
    return [int(pid) for pid, parent, words in rows if int(parent) == process.pid and "ipykernel" in words]


def test_each_page_has_its_own_address_and_token_and_ends_with_its_kernels(two_pages):
    (one, first), (two, second) = two_pages
    assert first != second and first.split("/?")[0] != second.split("/?")[0]
    bare = first.split("?")[0]
    token = second.split("=")[1]
    for wrong in (bare, f"{bare}?token=wrong", f"{bare}?token={token}", f"{bare}api/kernels/0/channels"):
        status, where, text = answer(wrong)
        assert (status == 403 or "/login" in where) and "jupyter.widget-view" not in text
    for host in ("evil.example", "evil.example:80", "localhost.evil.example"):
        assert answer(first, Host=host)[0] == 403
    assert kernels_of(one) == [], "nobody who may not look has a kernel started"
    status, _, text = answer(first)
    assert status == 200 and "jupyter.widget-view" in text
    (kernel,) = kernels_of(one)
    os.kill(one.pid, signal.SIGTERM)
    assert one.wait(30) == 0
    until = time.monotonic() + 30
    while os.path.exists(f"/proc/{kernel}") and time.monotonic() < until:
        time.sleep(0.1)
    assert not os.path.exists(f"/proc/{kernel}") and two.poll() is None


@pytest.mark.parametrize("port", [-1, 65536, 10**9])
def test_what_is_no_port_is_refused(port, monkeypatch, capsys):
    assert run_command(monkeypatch, "inspect", "--no-browser", "--port", str(port)) == 2
    said = capsys.readouterr().err
    assert "port" in said and "65535" in said and str(port) in said


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_port_that_is_taken_is_refused_and_passed_over(host, monkeypatch):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if family == socket.AF_INET6 and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        taken = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip("no IPv6 here")
    with taken:
        port = taken.getsockname()[1]
        if family == socket.AF_INET6 and not any(
            address[0] == socket.AF_INET6 for address in socket.getaddrinfo("localhost", port)
        ):
            pytest.skip("localhost has no IPv6 address here")
        with pytest.raises(SelfieLiteError, match=f"port {port} is taken"):
            choose_port(port)
        monkeypatch.setattr("selfie_lite.inspector.page.PORT", port)
        assert choose_port(None) != port
    assert choose_port(port) == port
    assert 0 < choose_port(0) < 2**16 and PORT == 8866


def test_the_page_is_refused_for_a_model_that_is_not_there(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run_command(monkeypatch, "inspect", "--model", "aditive") == 2
    assert "Did you mean 'additive'" in capsys.readouterr().err and not list(tmp_path.iterdir())
