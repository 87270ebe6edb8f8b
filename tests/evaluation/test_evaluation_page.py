"""evaluation.html: what it says, and what it does in a browser."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from chromium import BINARY, Browser

from gymnast_core.errors import DataError
from gymnast_core.types import Rollout, Task
from gymnast_evaluation.page import build_evaluation_page
from gymnast_evaluation.scatter import policy_scatter, task_scatter
from gymnast_evaluation.summary import Scores, summarise
from gymnast_evaluation.trials import Trial, TrialFile
from gymnast_evaluation.videos import film, filmed_trials
from gymnast_report.runs import run_row
from gymnast_report.viewing import start_page

POLICIES = ("alpha", "beta", "gamma")
WORLDS = ("imagined", "real")
INSTRUCTIONS = ("push left", "push <b>right</b>")
COUNT = 60
ERROR = "503: </script> overloaded"


def trial(policy: str, world: str, index: int) -> Trial:
    """Beta fails every fourth trial, gamma every second; imagination is wrong about every tenth."""
    value = float(index % {"alpha": 100, "beta": 4, "gamma": 2}[policy] != 0)
    value = 1 - value if world == "imagined" and index % 10 == 3 else value
    unscored = policy == "beta" and world == "imagined" and index == 7
    return Trial(
        policy=policy, world=world, index=index, task=f"task-{index}", instruction=INSTRUCTIONS[index % 2], trial=0,
        seed=0, batch=0, value=None if unscored else value, partial=0.25 if world == "imagined" else None,
        outcome=value if world == "real" else None, error=ERROR if unscored else None, rationale="", cost_usd=0.01,
    )  # fmt: skip


def rollout(index: int) -> Rollout:
    frames = torch.full((6, 1, 16, 16, 3), 40 * (index % 6), dtype=torch.uint8)
    task = Task(f"task-{index}", INSTRUCTIONS[index % 2], frames[:1])
    return Rollout(task, index, frames, torch.zeros(1, 5, 2), torch.zeros(1, 5, 2), 0.0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation") / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("kind: evaluate\nseed: 0\n")
    file = TrialFile(folder / "results.jsonl", {0: COUNT})
    for policy in POLICIES:
        for world in WORLDS:
            file.append([trial(policy, world, index) for index in range(COUNT)])
            chosen = filmed_trials(COUNT, 3)
            film(folder, policy, world, [rollout(index) for index in sorted(chosen)], chosen)
    summary = summarise(Scores(file.trials, POLICIES, WORLDS, "instruction"))
    (folder / "summary.json").write_text(json.dumps(summary))
    build_evaluation_page(folder)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_of_policies_that_always_tie_no_order_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("kind: evaluate\nseed: 0\n")
    twins = ("alpha", "twin")
    file = TrialFile(tmp_path / "results.jsonl", {0: COUNT})
    for policy in twins:
        file.append([replace(trial("beta", "real", index), policy=policy) for index in range(COUNT)])
    (tmp_path / "summary.json").write_text(json.dumps(summarise(Scores(file.trials, twins, ("real",), "instruction"))))
    build_evaluation_page(tmp_path)
    page = (tmp_path / "evaluation.html").read_text()
    lead = re.search(r'<p class="lead">(.*?)</p>', page, re.DOTALL)
    assert lead is not None and lead.group(1) == "Their means are equal: these trials put none of them first."
    assert ">alpha and twin tie in real with 75.0 %</h1>" in page


def test_the_page_says_who_is_best_and_how_sure_that_is(finished: Path) -> None:
    page = (finished / "evaluation.html").read_text()
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["reference"] == "real"  # it knows outcomes
    assert "alpha succeeds most often in real: 98.3 %" in page
    assert "1 trials could not be scored and count neither way" in page and "judging cost $3.60" in page
    assert summary["results"]["beta"]["imagined"]["n"] == COUNT - 1
    assert "exact McNemar, 60 trials" in page and "Does imagined foretell real?" in page
    found = summary["agreement"]["imagined"]
    assert f"<strong>{found['pearson']['value']:.3f}</strong>" in page
    assert found["table"]["unscored"] == {"success": 1, "failure": 0, "unscored": 0}


def test_the_page_needs_nothing_but_itself(finished: Path) -> None:
    page = (finished / "evaluation.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"", page)
    assert "<b>right</b>" not in page and "503: </script>" not in page
    videos = re.findall(r"<video[^>]*>", page)
    assert len(videos) == 3 * 2 * 3
    assert all('aria-label="' in video and "data:video/mp4" in video for video in videos)
    assert all('aria-label="' in svg for svg in re.findall(r"<svg[^>]*>", page))


def rendered(folder: Path, starts: Callable[[int], str], group_by: str = "task") -> str:
    """The page of three policies in two worlds, trials beginning at the start of their number."""
    folder.mkdir()
    (folder / "config.yaml").write_text("kind: evaluate\n")
    file = TrialFile(folder / "results.jsonl", {0: COUNT})
    for world in WORLDS:
        for number, policy in enumerate("abc"):
            rows = [replace(trial("alpha", world, i), policy=policy, task=starts(i)) for i in range(COUNT)]
            file.append([replace(row, value=float((row.index * 7) % 10 < 3 * number)) for row in rows])
    summary = summarise(Scores(file.trials, list("abc"), WORLDS, group_by))
    (folder / "summary.json").write_text(json.dumps(summary))
    return build_evaluation_page(folder).read_text()


def test_the_page_names_the_test_and_why_an_interval_is_missing(tmp_path: Path) -> None:
    missing = "No interval over trials for policies × tasks"
    alone = rendered(tmp_path / "alone", lambda index: f"start-{index}")
    assert f"exact McNemar, {COUNT} trials<" in alone and f"{missing}: {COUNT} of {COUNT} tasks have one" in alone
    repeated = rendered(tmp_path / "repeated", lambda index: f"start-{index % 10}")
    assert f"paired permutation of starts, {COUNT} trials of 10 starts<" in repeated
    assert f"{missing}: 10 of 10 tasks" in repeated
    assert missing not in rendered(tmp_path / "grouped", lambda index: f"start-{index}", group_by="instruction")


def test_many_policies_are_compared_in_a_matrix(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("kind: evaluate\n")
    file = TrialFile(tmp_path / "results.jsonl", {0: 20})
    for successes, policy in enumerate("abcd"):
        rows = [replace(trial("alpha", "real", i), policy=policy, value=float(i < 6 * successes)) for i in range(20)]
        file.append(rows)
    summary = summarise(Scores(file.trials, list("abcd"), ["real"], "task"))
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    page = build_evaluation_page(tmp_path).read_text()
    best = re.search(r'<tr><th scope="row">d</th>(.*?)</tr>', page[page.index("row minus column") :], re.S)
    assert best is not None
    cells = re.findall(r"<td(?: class=\"(\w+)\")?>([^<]*)</td>", best.group(1))
    # 6 discordant trials of one kind: p = 2 / 2**6 = 0.031 before the correction.
    assert cells == [("", ""), ("", "+30.0"), ("better", "+60.0"), ("better", "+90.0")]
    assert "No single policy" not in page and "All 6 pairs" in page


def test_videos_without_room_are_linked_fairly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the room shows the first trials of every policy, not every trial of the first policy."""
    size = sum(path.stat().st_size for path in (folder / "videos").rglob("*.*"))
    monkeypatch.setattr("gymnast_evaluation.page.EMBEDDED_BYTES", size // 2)
    page = build_evaluation_page(folder).read_text()
    for policy in POLICIES:
        shown = page.count(f'aria-label="imagined, {policy}: ')
        assert 0 < shown < 3
    linked = re.findall(r'href="(videos/[^"]+)"', page)
    assert linked and all((folder / path).exists() for path in linked)


def test_scatter_plots_place_every_pair(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    policies, tasks = policy_scatter(summary, "imagined"), task_scatter(summary, "imagined")
    assert [point.name for point in policies.points] == ["alpha", "beta", "gamma"]
    assert len(tasks.points) == 6
    root = ElementTree.fromstring(policies.svg(standalone=True))
    circles = [element for element in root.iter() if element.tag.endswith("circle")]
    assert len(circles) == 3 and "alpha: success in real 98.3 %" in "".join(circles[0].itertext())
    # Higher success in reality is further right, higher imagined success is further up.
    xs = [float(circle.get("cx", "nan")) for circle in circles]
    assert xs == sorted(xs, reverse=True)
    ys = [float(circle.get("cy", "nan")) for circle in circles]
    assert ys == sorted(ys)


def test_a_folder_without_results_is_an_error(folder: Path) -> None:
    (folder / "summary.json").unlink()
    with pytest.raises(DataError, match=r"holds no summary.json.*gymnast evaluate --resume"):
        build_evaluation_page(folder)


def test_one_policy_and_one_world_make_a_page(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("kind: evaluate\n")
    file = TrialFile(tmp_path / "results.jsonl", {0: 4})
    file.append([trial("gamma", "real", index) for index in range(4)])
    summary = summarise(Scores(file.trials, ["gamma"], ["real"], "task"))
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    page = build_evaluation_page(tmp_path).read_text()
    assert "gamma succeeds in real: 15.0 % to 85.0 % (50.0 % of 4 trials)" in page
    assert "foretell" not in page and "Ranking" not in page
    assert "worlds disagree" not in page


@pytest.mark.skipif(BINARY is None, reason="needs Chromium")
def test_the_page_in_a_browser(finished: Path, tmp_path: Path) -> None:
    with Browser(tmp_path / "profile", width=375, height=800) as browser:
        browser.open((finished / "evaluation.html").as_uri())

        browser.wait("document.getElementById('count')?.textContent")

        def count() -> Any:
            return [int(n) for n in re.findall(r"\d+", browser.value("document.getElementById('count').textContent"))]

        def choose(name: str, value: str) -> None:
            browser.value(
                f"(f => {{ f.elements['{name}'].value = {json.dumps(value)};"
                " f.dispatchEvent(new Event('input')); })(document.getElementById('filter'))"
            )

        assert count() == [180, 180, 9, 9]
        assert browser.value("document.documentElement.scrollWidth") <= 375
        choose("policy", "1")
        assert count() == [60, 180, 3, 9]
        choose("score", "unscored")
        assert count()[0] == 1 and "503: </script>" in browser.value("document.querySelector('#rows tbody').innerText")
        browser.value("document.querySelector('#filter button[type=reset]').click()")
        browser.wait("document.getElementById('count').textContent.startsWith('180')")
        browser.press("d")
        assert count()[0] == 3 * 6  # imagination is wrong about every tenth trial of each policy
        browser.press("d")
        choose("text", "<B>RIGHT")
        assert count()[0] == 90
        choose("text", "")
        heading = "document.querySelectorAll('#rows thead button')[4]"
        browser.value(f"{heading}.click()")
        first = "document.querySelector('#rows tbody tr').cells[4].innerText"
        assert browser.value(first).startswith("failure")
        browser.value(f"{heading}.click()")
        assert browser.value(first).startswith("success")
        assert browser.value("document.querySelectorAll('#rows tbody tr').length") == 50
        browser.value("document.querySelector('[name=after]').click()")
        assert browser.value("document.querySelector('#pages span').textContent") == "2 of 4"
        browser.press("j")
        assert browser.value("document.activeElement.dataset.row") == browser.value(
            "document.querySelector('.film').dataset.row"
        )
        browser.press(" ")
        playing = "[...document.activeElement.querySelectorAll('video')].every(v => !v.paused && v.videoWidth > 0)"
        browser.wait(playing)
        browser.press("k")
        browser.press("/")
        assert browser.value("document.activeElement.name") == "text"
        assert browser.value("performance.getEntriesByType('resource').every(e => e.name.startsWith('data:'))")
        assert browser.problems == []


def test_coin_flips_are_not_called_success(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("kind: evaluate\n")
    file = TrialFile(tmp_path / "results.jsonl", {0: 4})
    file.append([trial("gamma", "real", index) for index in range(4)])
    summary = summarise(Scores(file.trials, ["gamma"], ["real"], "task"))
    summary["judges"] = {"real": {"name": "random", "kind": "success"}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    page = build_evaluation_page(tmp_path).read_text()
    headline = page[page.index("<h1") : page.index("</h1>")]
    assert "gamma in real, mean coin flip by random: 0.15 to 0.85 (mean 0.5 of 4 trials)" in headline
    assert "flips coins: its numbers say nothing" in page


def test_the_list_of_runs_claims_what_the_page_claims(tmp_path: Path) -> None:
    run = tmp_path / "comparisons/evaluated"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("kind: evaluate\npolicies: {gamma: {name: openvla-oft}}\n")
    assert run_row(run, tmp_path).result == "–"  # not measured yet
    file = TrialFile(run / "results.jsonl", {0: 4})
    file.append([trial("gamma", "real", index) for index in range(4)])
    summary = summarise(Scores(file.trials, ["gamma"], ["real"], "task"), {"real": "environment"})
    (run / "summary.json").write_text(json.dumps(summary))
    build_evaluation_page(run)
    row = run_row(run, tmp_path)
    assert row.result == "gamma succeeds in real: 15.0 % to 85.0 % (50.0 % of 4 trials)" and row.value == 0.5
    assert (row.facts.judge, row.facts.policy) == ("environment", "gamma (openvla-oft)")
    assert row.note == "n = 4 trials of each policy in each world, 4 starts"
    assert row.page == "comparisons/evaluated/evaluation.html" and not row.can_be_compared
    html = start_page(tmp_path)
    assert "gamma succeeds in real" in html and 'data-value="0.5"' in html
