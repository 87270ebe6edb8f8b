"""`gymnast view` while runs go on: pages that follow, a list of runs, comparisons, groups side by side, on a phone."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from chromium import Browser
from fake_run import groups, make_run, write_json

from gymnast_core.runs.folder import LOCK
from gymnast_pages import state as states
from gymnast_pages.server import FolderServer
from gymnast_pages.state import State, write_state
from gymnast_report.viewing import viewer

NARROW = "document.documentElement.scrollWidth <= 375"
OVERFLOWS = (
    """[...document.querySelectorAll('.stacked')].filter(t => t.scrollWidth > t.parentElement.clientWidth + 1).length"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of one seed: alike at first, then with another learning rate, other results and other states."""
    folder = tmp_path_factory.mktemp("watched") / "runs"
    make_run(folder / "first")
    groups(folder / "first")
    for name, rate, values in (("second", 3e-4, [1.0] * 9), ("third", 1e-3, [0.0] * 9)):
        shutil.copytree(folder / "first", folder / name)
        (folder / name / "report.html").unlink()
        config = yaml.safe_load((folder / name / "config.yaml").read_text())
        config["optimizer"]["args"] = {"learning_rate": rate}
        (folder / name / "config.yaml").write_text(yaml.safe_dump(config))
        after = json.loads((folder / name / "evaluations/after.json").read_text())
        for episode, value in zip(after["episodes"], values, strict=True):
            episode["value"] = value
        write_json(folder / name / "evaluations/after.json", {**after, "n": 9, "unscored": 0, "rate": values[0]})
    write_state(folder / "third", State(states.CRASHED, 7, 20, "iteration", "ValueError: <b>no</b> camera"))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[FolderServer]:
    with viewer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def left(browser: Browser) -> Iterator[None]:
    """No page of the server asks on while other tests look at what is asked for."""
    yield
    browser.open("about:blank")


def opened(browser: Browser, url: str) -> None:
    browser.open("about:blank")  # the page of another test may still ask its server
    browser.open(url)


def text(browser: Browser, selector: str) -> str:
    return " ".join(browser.value(f"document.querySelector('{selector}').innerText").split())


def test_runs_are_listed_with_what_they_are_and_any_can_be_compared(browser: Browser, server: FolderServer) -> None:
    opened(browser, server.url)
    assert text(browser, ".lead").startswith("3 runs") and "1 crashed" in text(browser, ".lead")
    second = "[...document.querySelectorAll('tbody tr')].find(r => r.innerText.includes('second'))"
    row = " ".join(browser.value(f"{second}.innerText").split())
    for said in ("gymnasium", "environment", "openvla-oft", "grpo", "100.0 % of 9 trials", "n = 9, after 7 iterations"):
        assert said in row, (said, row)
    assert browser.value(f"{second}.querySelector('svg.spark path').getAttribute('d').split('L').length") == 7
    assert "ValueError: <b>no</b> camera" in text(browser, "#runs")  # as text
    assert browser.value(NARROW) and browser.value(OVERFLOWS) == 0
    assert browser.value("document.getElementById('compare').hidden")
    for name in ("first", "second", "third"):
        browser.value(f"document.querySelector('input[value={name}]').click()")
    assert text(browser, "#compare") == "Compare 3 runs"
    browser.value("document.getElementById('compare').click()")
    browser.wait("document.querySelector('#paired tbody tr') !== null")
    assert browser.problems == []
    assert all(url.startswith(server.url) for url in browser.requests)


def test_three_runs_are_compared_by_curve_config_and_pairs(browser: Browser, server: FolderServer) -> None:
    opened(browser, f"{server.url}compare?run=first&run=second&run=third")
    chart = "[...document.querySelectorAll('figure.chart')].find(f => f.innerText.startsWith('In training: success'))"
    assert browser.value(f"{chart}.querySelectorAll('path.line').length") == 3
    colours = f"[...{chart}.querySelectorAll('path.line')].map(l => getComputedStyle(l).stroke)"
    assert len(set(browser.value(colours))) == 3
    rows = browser.value("[...document.querySelectorAll('#differences tbody tr')].map(r => r.innerText)")
    assert len(rows) == 1 and all(part in rows[0] for part in ("optimizer.args.learning_rate", "0.0003", "0.001"))
    paired = browser.value("[...document.querySelectorAll('#paired tbody tr')].map(r => r.innerText)")
    # 8 tasks judged in both, of which the first run solved 6: McNemar's p is 2 / 2² and 2 / 2⁶; Holm doubles the less.
    assert "0 : 2" in paired[0] and "0.500" in paired[0] and "6 : 0" in paired[1] and "0.062" in paired[1]
    assert browser.value(NARROW) and browser.value(OVERFLOWS) == 0
    assert browser.problems == []
    browser.requests.clear()
    browser.open(f"{server.url}compare?run=first&run=../x")
    assert "There is no run" in browser.value("document.body.innerText")
    browser.problems.clear()  # the answer was 404


def test_a_group_is_seen_side_by_side(browser: Browser, server: FolderServer) -> None:
    opened(browser, f"{server.url}first/report.html")
    members = "[...document.querySelectorAll('.group[open] .member')]"
    assert browser.value(f"{members}.length") == 4
    found = browser.value(f"{members}.map(m => m.innerText.replace(/\\s+/g, ' '))")
    assert "success" in found[0] and "advantage +1.5" in found[0] and "8 of 8 actions count" in found[0]
    assert "masked: not judged" in found[2] and "3 of 8 actions count, the rest is masked" in found[3]
    places = browser.value(f"{members}.slice(0, 2).map(m => m.getBoundingClientRect().top)")
    assert places[0] == places[1]  # side by side, on a phone too
    assert browser.value("[...document.querySelectorAll('video')].every(v => !v.controls)")
    browser.value("document.querySelector('.group[open] button.play').click()")
    browser.wait("[...document.querySelectorAll('.group[open] video')].every(v => !v.paused)")
    heavy = browser.value("[...document.querySelectorAll('#weight ~ .scroll tbody tr')].map(r => r.innerText)")
    assert "push" in heavy[0] and "%" in heavy[0]
    assert browser.value(NARROW) and browser.value(OVERFLOWS) == 0
    browser.value("document.querySelector('a[download=\"metrics.csv\"]').click()")
    href = browser.value("atob(document.querySelector('a[download=\"metrics.csv\"]').href.split(',')[1])")
    assert href.startswith("iteration,imagined_success")
    assert browser.problems == []


def test_a_page_follows_its_run_and_waits_while_a_video_plays(
    browser: Browser, server: FolderServer, folder: Path
) -> None:
    import fcntl

    run = folder / "first"
    with (run / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_state(run, State(states.RUNNING, 7, 20, "iteration", began=states.now(), first=0))
        opened(browser, f"{server.url}first/report.html")
        assert "iteration 7 of 20" in text(browser, ".state.running")
        browser.value("window.mark = 1; window.scrollTo(0, 300)")
        browser.value("document.querySelector('.group[open] video').play()")
        (run / "groups.jsonl").write_text((run / "groups.jsonl").read_text().replace("[1.5,-1.5", "[1.75,-1.5"))
        metrics = run / "metrics.csv"
        metrics.write_text(metrics.read_text() + "8,0.9,4,4,0.01,1.5,3\n")
        evaluation = json.loads((run / "evaluations/after.json").read_text())
        write_json(run / "evaluations/after.json", {**evaluation, "iteration": 8})
        browser.wait("document.querySelector('.state').innerText.includes('iteration 8 of 20')")
        tiles = text(browser, ".tiles")
        assert "Iterations 8" in tiles and "10 imagined rollouts" in tiles  # 7 unscored ones and 3 more
        assert browser.value("!document.querySelector('.group[open] video').paused")
        assert "+1.5" in text(browser, ".group[open]") and "+1.75" not in text(browser, ".group[open]")
        browser.value("document.querySelectorAll('video').forEach(v => v.pause())")
        browser.wait("document.querySelector('.group[open]').innerText.includes('+1.75')")
        assert browser.value("window.mark === 1 && window.scrollY === 300")  # nothing was loaded anew
    # The lock is gone, and nobody wrote an end: killed.
    browser.wait("document.querySelector('.state').innerText.startsWith('Stopped without saying so')")
    assert browser.value("document.documentElement.dataset.state") == "lost"
    assert browser.problems == []
    assert set(browser.requests) == {f"{server.url}first/report.html"}


def test_the_list_follows_and_keeps_what_was_ticked(browser: Browser, server: FolderServer, folder: Path) -> None:
    opened(browser, server.url)
    browser.value("document.querySelector('input[value=second]').click()")
    browser.value("document.querySelector('input[value=third]').click()")
    write_state(folder / "third", State(states.FINISHED, 20, 20, "iteration"))
    browser.wait("!document.querySelector('.lead').innerText.includes('crashed')")
    assert browser.value("document.querySelector('input[value=second]').checked")
    assert text(browser, "#compare") == "Compare 2 runs"
    assert browser.problems == []
