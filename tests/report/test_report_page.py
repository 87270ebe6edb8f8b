"""The page: self-contained, honest, and safe with hostile text."""

from __future__ import annotations

import base64
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import av
import fake_run
import pytest

from gymnast_core.config import ComponentConfig, to_yaml
from gymnast_core.errors import DataError
from gymnast_core.runs.results import read_run
from gymnast_core.runs.spending import Payment, note
from gymnast_report import report
from gymnast_report.__main__ import main

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Elements, attributes and visible text; notes tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.misnested: list[str] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if self._open.pop() != tag:
            self.misnested.append(tag)

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("script", "style"):
            self.text += " " + " ".join(data.split())

    def find(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def html(finished_run):
    return (finished_run / "report.html").read_text()


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_the_page_loads_nothing_from_anywhere(html, page):
    assert not re.search(r"https?://|@import|url\(", html)
    for tag, attributes in page.elements:
        for name in ("src", "href", "poster", "srcset", "data", "action"):
            target = attributes.get(name)
            # A link to a file of the run is not followed before somebody clicks it.
            beside = tag == "a" and name == "href" and re.fullmatch(r"[\w.]+", target or "")
            assert target is None or beside or target.startswith(("data:", "#")), (tag, name)
    assert not page.misnested
    assert len(html) < 6_000_000


def test_every_video_plays_from_the_page_itself(page):
    videos = page.find("video")
    assert len(videos) == 12 + 4 * 3 + 6
    for video in videos:
        header, _, content = video["src"].partition(",")
        assert header == "data:video/mp4;base64"
        with av.open(io.BytesIO(base64.b64decode(content))) as container:
            assert sum(1 for _ in container.decode(video=0)) == 9
        assert video["aria-label"] and "controls" in video
        assert video["poster"].startswith("data:image/jpeg;base64,")


def test_the_headline_states_both_rates_and_the_interval(page):
    assert "Task success rose by +6.2 to +68.8 points: from 33.3 % to 75.0 %" in page.text
    for number in ("+37.5 points", "+6.2", "+68.8 points", "8 tasks judged both times", "12.1 % to 64.6 %"):
        assert number in page.text
    assert "does not show a difference" not in page.text


def test_unscored_episodes_are_named_and_never_counted(page):
    assert "8 scored, 1 unscored" in page.text
    assert "2 scored, 1 unscored" in page.text
    assert "The judge did not answer: 503" in page.text


def test_config_versions_and_commands_are_on_the_page(finished_run, page):
    for text in (
        "name: openvla-oft",
        "torch: 2.13.0",
        f"gymnast train --resume {finished_run}",
        f"output={finished_run}-again",
    ):
        assert text in page.text


def test_hostile_instructions_stay_text(html, page):
    assert len(page.find("script")) == 1
    assert "alert(" not in html.replace("&lt;script&gt;alert(", "")
    assert fake_run.HOSTILE in page.text


def test_charts_are_well_formed_labelled_drawings(html):
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.get("role") == "img" and len(root.get("aria-label")) > 20
        labels = [element.text for element in root.iter("text") if element.get("class") == "label"]
        assert labels[0] == "iteration" and len(labels) == 2


def test_a_run_without_evidence_says_so(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    assert "No evaluation" in Page(report.build_report(tmp_path).read_text()).text


def test_an_interval_around_zero_is_called_no_difference(run_copy):
    summary = {"difference": {"mean": 0.1, "interval": [-0.1, 0.3], "n": 8, "method": "m"}}
    text = Page(report.build_report(run_copy, summary=summary).read_text()).text
    assert "this run does not show a difference" in text and "−10.0" in text


def test_when_nothing_was_scored_the_rate_is_unscored_and_not_zero(tmp_path):
    config = fake_run.run_config(tmp_path)
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    fake_run.evaluate(config, "before", 0, [None, None])
    text = Page((tmp_path / "report.html").read_text()).text
    assert "Task success before training: unscored" in text
    assert "0.0 %" not in text


def test_videos_beyond_the_budget_are_named_instead_of_embedded(run_copy, monkeypatch):
    monkeypatch.setattr(report, "EMBEDDED_BYTES", 20_000)
    page = Page(report.build_report(run_copy).read_text())
    assert 1 <= len(page.find("video")) < 30
    assert "videos/iteration-000001-imagined-01.mp4" in page.text


def test_the_evaluations_of_other_policies_are_compared_by_their_labels(tmp_path):
    config = fake_run.run_config(tmp_path)
    (tmp_path / "config.yaml").write_text("kind: evaluate\n")
    fake_run.evaluate(config, "old-in-sim", 0, [0.0, 1.0])
    fake_run.evaluate(config, "new-in-sim", 0, [1.0, 1.0])
    text = Page(report.build_report(tmp_path).read_text()).text
    assert (
        "new-in-sim: 34.2 % to 100.0 % (100.0 % of 2 trials), old-in-sim: 9.5 % to 90.5 % (50.0 % of 2 trials)" in text
    )
    assert "gymnast evaluate" in text


def test_other_rewards_are_named_after_their_judge(tmp_path):
    config = replace(fake_run.run_config(tmp_path, iterations=2), reward_model=ComponentConfig("progress-judge"))
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    (tmp_path / "metrics.csv").write_text("step,imagined_reward,groups_kept\n1,-3.5,2\n2,12.25,2\n")
    rollouts = [fake_run.rollout(i) for i in range(2)]
    fake_run.scored(config, rollouts, [-3.5, 12.25], 1, kind="score")
    fake_run.evaluate(config, "before", 0, [-3.0, -1.0], kind="score")
    fake_run.evaluate(config, "after", 2, [2.5, 2.5], kind="score")
    (tmp_path / "summary.json").write_text('{"difference": "a third party\'s"}')
    page = Page(report.build_report(tmp_path).read_text())
    assert "No change of mean reward by environment is shown: −2 before, 2.5 after" in page.text
    assert "Mean reward by environment by instruction" in page.text and "reward 12.25" in page.text
    shown = page.text[: page.text.index("Repeat this run")].lower()
    assert (
        "success" not in shown
        and "failure" not in shown
        and "%" not in re.sub("partial credit [0-9.]+ %|95 %", "", shown)
    )
    labels = [attributes["aria-label"] for attributes in page.find("svg")]
    assert labels[0].startswith("Mean reward by progress-judge. imagined: -3.5 at iteration 1, 12.25")
    assert labels[1].startswith("Mean reward by environment. evaluation with 95 % interval: -2 at iteration 0")


@pytest.mark.parametrize(
    ("paid", "said"),
    [([], None), ([0.5, 0.75], "Cost of judging $1.25"), ([0.5, None], "Cost of judging unknown")],
)
def test_what_the_run_has_cost_is_on_the_page(run_copy, paid, said):
    for usd in paid:
        note(run_copy, Payment("training", 1, usd))
    text = " ".join(Page(report.build_report(run_copy).read_text()).text.split())
    assert "Cost of judging" not in text if said is None else said in text


def test_what_resumes_changed_is_on_the_page(run_copy):
    resumes = [
        {"time": "2026-01-02T03:04:05+00:00", "changes": {"loop.iterations": [7, 9]}},
        {"time": "2026-01-03T03:04:05+00:00", "changes": {}},
    ]
    (run_copy / "resumed.json").write_text(json.dumps(resumes))
    text = Page(report.build_report(run_copy).read_text()).text
    assert "Changed when it was resumed" in text and "2026-01-02T03:04:05+00:00 loop.iterations 7 9" in " ".join(
        text.split()
    )
    assert "2026-01-03" not in text


def test_a_fit_shows_each_of_its_metrics_by_step(tmp_path):
    (tmp_path / "config.yaml").write_text("kind: fit\nseed: 0\n")
    (tmp_path / "metrics.csv").write_text(
        "step,loss,validation/psnr,validation/psnr_4,validation/count_8\n50,0.5,,,\n100,0.4,21.5,20.5,3\n"
    )
    page = Page(report.build_report(tmp_path).read_text())
    assert "Supervised training, 100 steps" in page.text and "gymnast fit --resume" in page.text
    labels = [attributes["aria-label"] for attributes in page.find("svg")]
    assert labels[0] == "loss. loss: 0.5 at step 50, 0.4 at step 100." and "psnr" in labels[1]
    # A measure by frame is drawn by its mean; what only looks like one is drawn.
    assert "count_8" in labels[2] and len(labels) == 3


def test_metrics_of_a_resumed_run_are_merged_by_iteration(run_copy):
    (run_copy / "metrics.csv").write_text("iteration,loss\n1,0.5\n2,0.4\n2,0.3\n")
    assert [row["loss"] for row in read_run(run_copy).metrics] == [0.5, 0.3]


def test_the_command_rebuilds_the_page_and_refuses_other_folders(run_copy, tmp_path, capsys):
    (run_copy / "report.html").unlink()
    assert main([str(run_copy)]) == 0
    assert capsys.readouterr().out.strip() == str(run_copy / "report.html")
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "is not a run folder: no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"label": "before"})])
def test_a_damaged_evaluation_is_named(tmp_path, content):
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluations" / "before.json").write_text(content)
    with pytest.raises(DataError, match=r"before\.json"):
        report.build_report(tmp_path)
