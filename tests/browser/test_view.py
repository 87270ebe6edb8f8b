"""`gymnast view`: what is served to whom."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Browser
from fake_run import make_run

from gymnast_core.errors import ConfigError, DataError
from gymnast_pages.server import FolderServer, find_pages
from gymnast_report.view import prepare


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view")
    make_run(folder / "run")
    (folder / "secret.txt").write_text("secret")
    (folder / "run/link.txt").symlink_to(folder / "secret.txt")
    (folder / "run/.hidden.txt").write_text("secret")
    (folder / "run/weights.safetensors").write_text("secret")
    return folder / "run"


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[FolderServer]:
    with FolderServer(run) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: FolderServer, path: str, host: str = "", method: str = "GET", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    for name, value in {"Host": host or server.hosts[0], **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_files_of_the_run_are_served(server: FolderServer, run: Path) -> None:
    assert ask(server, f"/{server.token}/report.html") == (200, (run / "report.html").read_bytes())
    video = min((run / "videos").glob("*.mp4"))
    assert ask(server, f"/{server.token}/videos/{video.name}")[1] == video.read_bytes()
    part = ask(server, f"/{server.token}/videos/{video.name}", Range="bytes=10-19")
    assert part == (206, video.read_bytes()[10:20])
    assert ask(server, f"/{server.token}/videos/{video.name}", Range="bytes=99999999-")[0] == 416
    assert ask(server, f"/{server.token}/report.html", method="HEAD") == (200, b"")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt", "videos/../../secret.txt", "/etc/hostname",
        "%2fetc%2fhostname", "..%5csecret.txt", "link.txt", ".hidden.txt", "weights.safetensors", "videos",
        "videos/", "report.html%00.txt", "a" * 5000 + ".txt", "nothing.html",
    ],
)  # fmt: skip
def test_nothing_else_is_served(server: FolderServer, name: str) -> None:
    status, content = ask(server, f"/{server.token}/{name}")
    assert status == 404 and b"secret" not in content


def test_without_the_secret_or_under_another_name_there_is_nothing(server: FolderServer) -> None:
    for path in ("/", "/report.html", f"/{server.token[:-1]}/report.html", f"/{server.token}"):
        assert ask(server, path)[0] == 404
    assert ask(server, f"/{server.token}/report.html", host=f"evil.example:{server.server_port}")[0] == 421
    assert ask(server, f"/{server.token}/report.html", method="POST")[0] == 501
    assert ask(server, f"/{server.token}/report.html", Origin="http://evil.example")[0] == 403
    assert ask(server, f"/{server.token}/report.html", Origin=f"http://{server.hosts[1]}")[0] == 200
    assert server.server_address[0] == "127.0.0.1"


def test_a_taken_port_is_one_clear_error(server: FolderServer, run: Path) -> None:
    with pytest.raises(ConfigError, match=f"Port {server.server_port} .*--port"):
        FolderServer(run, server.server_port)


def test_a_page_is_built_where_there_is_none(run: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    assert find_pages(tmp_path) == []
    prepare(tmp_path)
    assert find_pages(tmp_path) == ["report.html"]
    with pytest.raises(DataError, match="There is no folder"):
        prepare(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is not a run folder"):
        prepare(tmp_path / "empty")


def test_a_folder_of_several_pages_lists_them(run: Path, tmp_path: Path) -> None:
    (tmp_path / "cells/a b/run").mkdir(parents=True)
    for path in (tmp_path / "report.html", tmp_path / "cells/a b/run/report.html"):
        path.write_text("<p>page</p>")
    with FolderServer(tmp_path) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        status, content = ask(server, f"/{server.token}/")
        links = re.findall(r'<a href="([^"]+)"', content.decode())
        pages = [ask(server, f"/{server.token}/{link}") for link in links]
        server.shutdown()
        thread.join()
    assert status == 200 and links == ["report.html", "cells/a%20b/run/report.html"]
    assert pages == [(200, b"<p>page</p>")] * 2


def test_the_served_page_works_in_a_browser(browser: Browser, server: FolderServer) -> None:
    browser.open(server.url)
    browser.wait("document.querySelectorAll('video').length > 0")
    browser.value("document.querySelectorAll('video').forEach(v => { v.preload = 'auto'; v.load(); })")
    browser.wait("[...document.querySelectorAll('video')].every(v => v.readyState >= 2)")
    browser.value("document.querySelector('table.sortable thead button').click()")
    assert browser.value("document.querySelector('table.sortable th').ariaSort") == "ascending"
    assert browser.problems == []
    assert set(browser.requests) == {server.url, f"{server.url}report.html"}


def test_ctrl_c_ends_the_command(run: Path) -> None:
    # A shell that starts tests in the background makes its children ignore Ctrl-C.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{heed}; from gymnast_core.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", script, "view", str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+)(/\S+/)", process.stdout.readline())
        assert found is not None
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=10)
        connection.request("GET", f"{found[2]}report.html")
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0 and "Traceback" not in said and "Ended." in said


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nX: "])
def test_a_client_that_trickles_or_stops_is_cut_off(run: Path, sent: bytes) -> None:
    with FolderServer(run, read_seconds=0.5) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
            connection.sendall(sent)
            began, ended = time.monotonic(), False
            connection.settimeout(0.1)
            while not ended and time.monotonic() - began < 8:
                try:
                    connection.sendall(b"x")
                    ended = connection.recv(4096) == b""
                except TimeoutError:
                    continue
                except OSError:
                    ended = True
            assert ended
        server.shutdown()
