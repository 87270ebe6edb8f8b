"""The page of gates in a headless Chromium: offline, without errors, on a phone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from gate_parts import PARTS
from small import CommandLine

sys.path.append(str(Path(__file__).parents[1]))


def test_the_page_is_whole_on_a_phone(gymnast: CommandLine, tmp_path: Path) -> None:
    from chromium import BINARY, Browser

    if BINARY is None:
        pytest.skip("no chromium on PATH")
    small = ["gate.rollouts=48", "gate.most_rollouts=48", "gate.batch_size=24", "reward_model.args.rule=one-sided"]
    assert gymnast("gate", *PARTS, *small, "output=out").code == 1
    page = Path("out/gate.html").resolve()
    with Browser(tmp_path / "profile", width=375, height=800) as browser:
        browser.open(page.as_uri())
        assert browser.value("document.documentElement.scrollWidth <= 375")
        assert browser.problems == [] and browser.requests == [page.as_uri()]
        assert browser.value("[...document.images].every(image => image.complete && image.naturalWidth && image.alt)")
        assert browser.value("[...document.querySelectorAll('svg')].every(drawing => drawing.ariaLabel)")
        # Every gate has its verdict, and leads to its section.
        assert browser.value("document.querySelectorAll('.gates li .verdict').length") == 4
        assert browser.value("[...document.querySelectorAll('.gates a')].every(a => document.querySelector(a.hash))")
        assert browser.value("document.querySelector('h1').textContent").endswith("the gate of judge fails")
