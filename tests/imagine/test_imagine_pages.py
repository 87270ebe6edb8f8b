"""The pages as people meet them: the real command, and a real browser where there is one."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys

import dots
import pytest
from chromium import BINARY, Browser
from driving import serving, session

needs_browser = pytest.mark.skipif(BINARY is None, reason="no chromium on PATH")
# A shell that starts tests in the background makes its children ignore Ctrl-C.
SCRIPT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from gymnast_core.cli import main
main()
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_server_and_saves_what_was_not(tmp_path, number, status):
    words = ["imagine", "imagine-tabletop", "actions=keyboard", "chunk=2", f"output={tmp_path / 'out'}"]
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            found = re.search(r"http://(127\.0\.0\.1:\d+)(/\S+/)", line := process.stderr.readline())
            assert found, line
            connection = http.client.HTTPConnection(found[1], timeout=60)
            body = json.dumps({"action": [0.02, 0.0]})
            connection.request("POST", f"{found[2]}step", body, {"Content-Type": "application/json"})
            state = json.load(connection.getresponse())
            assert (state["step"], set(state["frames"])) == (2, {"imagined", "gymnasium"})
            process.send_signal(number)
            printed, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == status, said
    assert "Traceback" not in said
    assert "Saved the 2 actions" in said
    if not status:
        assert json.loads(printed) == {"output": str(tmp_path / "out"), "sessions": 1}
    saved = {file.name for file in (tmp_path / "out/session-01").iterdir()}
    assert saved == {"actions.json", "replay.yaml", "video.mp4"}


@needs_browser
def test_keys_and_touch_drive_the_world(tmp_path):
    with serving(session(tmp_path / "out")) as server, Browser(tmp_path / "profile") as browser:
        browser.open(server.url)
        assert browser.value("byId('undo').disabled")
        start = browser.value("byId('view-1').src")
        browser.press("ArrowUp")
        browser.wait("state.step === 2 && !busy")
        assert browser.value("status.textContent") == "2 of at most 8 actions: y +1"
        assert browser.value("byId('view-1').src") != start
        assert browser.value("byId('view-1').alt") == "What other-dots shows after 2 actions"
        browser.resize(375, 800)
        assert browser.value("document.documentElement.scrollWidth") <= 375
        sizes = browser.value("[...document.querySelectorAll('button')].map((b) => b.getBoundingClientRect().height)")
        assert min(sizes) >= 44
        browser.value('document.querySelector(\'[data-dimension="0"][data-sign="-1"]\').click()')
        browser.wait("state.step === 4 && !busy")
        assert dots.SEEN[-1][1][0].tolist() == [[-2, 0], [-2, 0]]
        browser.press("u")
        browser.wait("state.step === 2 && !busy")
        browser.press("v")
        browser.wait("status.textContent.includes('session-01') && !busy")
        browser.press("x")
        browser.wait("state.step === 0 && !busy")
        assert browser.value("byId('view-1').src") == start
        assert browser.problems == []


@needs_browser
def test_the_video_page_plays_and_steps_by_keys_on_a_phone(imagine, tmp_path):
    imagine("actions=episode", "episodes=dots", "fps=30")
    with Browser(tmp_path / "profile", 375, 800) as browser:
        browser.open((tmp_path / "out/index.html").as_uri())
        browser.wait("videos.length === 3 && videos.every((video) => video.readyState >= 2)")
        assert browser.value("document.documentElement.scrollWidth") <= 375
        for place in (1, 2, 3, 4):
            browser.press("ArrowRight")
            browser.wait(f"count.textContent === '{place} / 8'")
        # The shortest episode has ended and waits at its last frame.
        assert browser.value("videos.map((video) => Math.floor(video.currentTime * 30))") == [4, 4, 3]
        browser.press("ArrowLeft")
        browser.wait("count.textContent === '3 / 8'")
        browser.press(" ")
        browser.wait("paused() && count.textContent === '8 / 8'")
        browser.press("Home")
        browser.wait("count.textContent === '0 / 8'")
        assert browser.problems == []
