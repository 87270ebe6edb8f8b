"""The page of a measured judge in a headless Chromium."""

from __future__ import annotations

from pathlib import Path

from chromium import Browser
from click.testing import CliRunner

from gymnast_core.cli import cli


def test_clips_are_seen_whole_and_play_when_touched(browser: Browser, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = CliRunner().invoke(cli, ["judge", "judge-tabletop", "clips.args.count=6", f"output={run}"])
    assert done.exit_code == 0, done.output
    page = (run / "confusion.html").as_uri()
    browser.open(page)
    assert browser.problems == [] and browser.requests == [page]
    assert browser.value("document.documentElement.scrollWidth <= 375")
    # Controls over a still of a few pixels would hide a third of it.
    assert browser.value("[...document.querySelectorAll('video')].every(video => !video.controls)")
    assert browser.value("document.querySelectorAll('video').length") == 6
    # A touch plays it, another one stops it; so does the space bar on the clip, or on the video itself: once each.
    key = "dispatchEvent(new KeyboardEvent('keydown', {key: ' ', bubbles: true}))"
    clip = "video.closest('.clip')"
    for act in ("video.click()", f"({clip}.focus(), {clip}.{key})", f"(video.focus(), video.{key})"):
        for paused in (False, True):
            script = f"(() => {{ const video = document.querySelector('video'); {act}; return video.paused; }})()"
            assert browser.value(script) is paused, act
    # Stopped before there was a frame to show: no error of the page.
    browser.value(
        "(() => { const video = document.querySelector('video'); video.load(); video.click(); video.click(); })()"
    )
    browser.value("new Promise(done => setTimeout(done, 100))")
    assert browser.problems == []
