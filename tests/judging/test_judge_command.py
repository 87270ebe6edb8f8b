"""`gymnast judge`: what it measures, counts apart, shows and resumes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from chromium import BINARY, Browser
from line_parts import Command

from gymnast_core.plugins.events import PageWanted
from gymnast_judging import hooks, page
from gymnast_judging.clips import clip_rollout
from gymnast_judging.page import build_confusion_page, chosen_films
from gymnast_judging.rows import RowFile
from gymnast_judging.verdicts import CASES, Verdict
from gymnast_pages.state import state_of
from gymnast_vlm_reward.loopback import Behaviour, LoopbackServer


def summary(run: Path) -> Any:
    return json.loads((run / "summary.json").read_text())


def rows(run: Path) -> list[Verdict]:
    return RowFile(run / "results.jsonl", Verdict).rows


def line(output: Path, *changes: str) -> list[str]:
    return ["judge", "reward_model=line", "clips=line-clips", "batch_size=8", "videos=2", f"output={output}", *changes]


def test_the_shipped_classifier_on_clips_from_seeds(gymnast: Command, tmp_path: Path) -> None:
    code, out, err = gymnast("judge", "judge-tabletop", "clips.args.count=40", "videos=1", f"output={tmp_path / 'run'}")
    assert code == 0, err
    found = summary(tmp_path / "run")
    assert (found["n"], found["successes"], found["unlabelled"], found["unscored"]["n"]) == (40, 20, 0, 0)
    assert found["rates"]["accuracy"]["value"] >= 0.9  # a network with damaged weights is near 0.5
    assert found["rates"]["accuracy"]["interval"][0] > found["accuracy_of_guessing"] == 0.5
    assert found["calibration"]["n"] == 40 and found["calibration"]["brier"] < 0.1 and found["votes"] is None
    assert json.loads(out[: out.rindex("}") + 1])["rates"] == found["rates"] and "Judging 40/40" in err
    assert "Judging cost" not in (tmp_path / "run/confusion.html").read_text()  # nobody was paid
    assert (tmp_path / "run/versions.json").exists()


def test_a_judge_that_takes_the_wrong_way_for_right(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    code, _, err = gymnast(*line(tmp_path / "run", "reward_model.args.rule=any"))
    assert code == 0, err
    found = summary(tmp_path / "run")
    assert found["confusion"] == {
        "true_positive": 10, "false_positive": 10, "false_negative": 0, "true_negative": 0,
    }  # fmt: skip
    assert found["rates"]["recall"]["value"] == 1.0 and found["rates"]["false_positive_rate"]["value"] == 1.0
    assert found["rates"]["accuracy"]["value"] == 0.5 == found["accuracy_of_guessing"]
    assert found["cost_usd"] == 10.0 and "cost $10.00" in err
    assert "Judging cost $10.00." in (tmp_path / "run/confusion.html").read_text()
    assert parts.Judge.announced == [(20, 4)] and parts.Judge.calls == [8, 8, 4]


def test_what_has_no_verdict_or_no_label_counts_in_no_rate(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    parts.Judge.fail = lambda rollout: rollout.task.id in ("clip-5", "clip-8", "clip-9")
    code, _, err = gymnast(*line(tmp_path / "run", "clips.args.unlabelled=4"))
    assert code == 0, err
    found = summary(tmp_path / "run")
    assert (found["n"], found["unlabelled"], found["unscored"]["n"]) == (13, 4, 3)
    assert found["unscored"]["failed"] == {"successes": 2, "failures": 1}
    assert found["unscored"]["abstained"] == {"successes": 0, "failures": 0}
    assert found["rates"]["accuracy"]["value"] == 1.0 and found["unscored"]["first_error"] == "the judge is asleep"
    assert found["cost_usd"] == pytest.approx(0.5 * (16 + 3))  # failed ones were asked again, and paid for twice
    page = (tmp_path / "run/confusion.html").read_text()
    assert "3 clips without a verdict count in no rate" in page and "4 clips without a label" in page


def test_a_judge_that_judges_nothing_is_reported_as_such(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    parts.Judge.fail = lambda rollout: True
    code, _, err = gymnast(*line(tmp_path / "run", "max_error_rate=1", "rescore=0"))
    assert code == 0, err
    found = summary(tmp_path / "run")
    assert found["n"] == 0 and found["unscored"]["n"] == 20 and found["calibration"] is None
    assert {share["value"] for share in found["rates"].values()} == {None}
    page = (tmp_path / "run/confusion.html").read_text()
    assert "line judged none of the clips" in page and "the judge is asleep" in page


def test_resuming_asks_only_about_what_has_no_verdict(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    run = tmp_path / "run"
    parts.Judge.fail = lambda rollout: rollout.group >= 6
    code, _, err = gymnast(*line(run, "max_error_rate=0.3"))
    assert code == 2 and "'line' could not judge 10 of 16 rollouts (limit 0.3)" in err, err
    assert f"gymnast judge --resume {run}" in err and "Traceback" not in err
    assert sorted({row.index for row in rows(run) if row.error is None}) == list(range(6))
    state = state_of(run)
    assert state.name == "crashed" and "could not judge 10 of 16" in state.error
    with (run / "results.jsonl").open("a") as handle:
        handle.write('{"index": 6, "clip"')  # killed while it wrote
    parts.Judge.fail, parts.Judge.calls = (lambda rollout: False), []
    code, _, err = gymnast("judge", "--resume", str(run))
    assert code == 0, err
    assert state_of(run).name == "finished"
    assert sum(parts.Judge.calls) == 14 and summary(run)["n"] == 20 and summary(run)["unscored"]["n"] == 0
    before, parts.Judge.calls = (run / "results.jsonl").read_bytes(), []
    code, _, err = gymnast("judge", "--resume", str(run))
    assert code == 0 and parts.Judge.calls == [] and (run / "results.jsonl").read_bytes() == before


def test_what_is_left_without_a_verdict_is_a_small_part_of_all(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    """Two clips of twenty that the judge never decides: asked again alone, they are still two of twenty."""
    run = tmp_path / "run"
    parts.Judge.fail = lambda rollout: rollout.group in (3, 4)
    assert gymnast(*line(run))[0] == 0
    code, _, err = gymnast("judge", "--resume", str(run))
    assert code == 0 and summary(run)["unscored"]["n"] == 2, err


def test_the_page_is_of_the_clips_that_were_asked_for(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    """All twenty were judged, then the measurement went on with fewer."""
    run = tmp_path / "run"
    assert gymnast(*line(run, "reward_model.args.rule=any"))[0] == 0
    assert gymnast("judge", "--resume", str(run), "episodes=8")[0] == 0
    found = summary(run)
    assert found["asked"] == 8 and found["n"] == 8
    shown: dict[str, Any] = {}

    def render(context: dict[str, Any]) -> str:
        shown.update(context)
        return ""

    with pytest.MonkeyPatch.context() as patch:
        template = SimpleNamespace(render=render)
        patch.setattr(page, "_environment", lambda: SimpleNamespace(get_template=lambda name: template))
        page.build_confusion_page(run)
    assert sum(shown["counts"].values()) == 8
    assert shown["counts"]["true positive"] == found["confusion"]["true_positive"]


def test_users_mistakes_are_one_clear_message(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    run = tmp_path / "run"
    assert gymnast(*line(run))[0] == 0
    code, _, err = gymnast("judge", "--resume", str(run), "reward_model.args.rule=left")
    assert code == 2 and "A resumed run cannot change" in err and "reward_model.args.rule was None" in err
    for change, message in (
        ("clips=line-tasks", "Tasks holds no episodes"),
        ("clips.args.unlabelled=20", "None of the 20 clips of 'line-clips' says whether it is a success"),
        ("threshold=1.0", "threshold is 1.0; it must lie in [0, 1)"),
        ("episodes=0", "episodes is 0; it must be at least 1"),
        ("clips={name: tabletop-clips, args: {behaviours: [plya]}}", "Did you mean 'play'?"),
        ("clips={name: tabletop-clips, args: {behaviours: [demonstrations], success_share: 0.0, count: 2, "
         "split: reportin}}", "Did you mean 'reporting'?"),
    ):  # fmt: skip
        code, _, err = gymnast(*line(tmp_path / "other", change))
        assert code == 2 and message in err and "Traceback" not in err, err
    parts.Judge.announced.clear()
    code, _, err = gymnast(*line(tmp_path / "unlabelled", "clips.args.unlabelled=20"))
    assert "column gymnast/success of its episodes" in err and parts.Judge.announced == []  # nobody was asked or paid


def test_a_judge_that_refuses_does_so_before_clips_are_made(
    gymnast: Command, tmp_path: Path, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    episodes = parts.Clips.episodes
    monkeypatch.setattr(parts.Clips, "episodes", lambda clips: made.append(1) or episodes(clips))
    monkeypatch.delenv("OPENAI_API_KEY")
    code, _, err = gymnast(*line(tmp_path / "keyless", "reward_model=gpt-4o"))
    assert code == 2 and "OPENAI_API_KEY" in err
    assert made == [] and not (tmp_path / "keyless").exists()


@pytest.mark.parametrize("change", ["clips=line-tasks", "clips.args.unlabelled=20", "batch_size=8"])
def test_the_judge_is_closed_once_whatever_comes(
    gymnast: Command, tmp_path: Path, parts: Any, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    closed: list[Any] = []
    monkeypatch.setattr(parts.Judge, "close", lambda judge: closed.append(judge))
    code, _, _ = gymnast(*line(tmp_path / "run", change))
    assert len(closed) == 1
    assert (code == 0) == (tmp_path / "run").exists(), "clips that cannot be used leave no folder"


def test_a_measurement_with_nothing_left_to_ask_needs_no_judge(
    gymnast: Command, tmp_path: Path, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gymnast(*line(tmp_path / "run"))[0] == 0
    assert gymnast(*line(tmp_path / "part", "clips.args.unlabelled=4"))[0] == 0
    monkeypatch.setattr(parts.Judge, "__init__", lambda judge, config: 1 / 0)
    assert gymnast("judge", "--resume", str(tmp_path / "run"))[0] == 0
    assert gymnast("judge", "--resume", str(tmp_path / "part"))[0] == 0, "clips without a label are not asked about"


def test_clips_without_a_label_are_in_no_estimate(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    """All twenty are read for the first batch, and sixteen of them asked about; the progress ends at all of them."""
    code, _, err = gymnast(*line(tmp_path / "run", "clips.args.unlabelled=4", "batch_size=32"))
    assert code == 0 and parts.Judge.announced == [(16, 4)] and "Judging 20/20" in err, err


def test_votes_and_costs_of_a_judge_behind_a_server(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    """The server looks at the last image's brightness, which says nothing of dots; two of five votes contradict."""
    with LoopbackServer(Behaviour(dissent=2)) as server:
        args = {
            "model": "gpt-4o", "base_url": server.openai_url, "cache": str(tmp_path / "vlm.sqlite"), "votes": 5,
            "frames": {"size": 16},
        }  # fmt: skip
        code, _, err = gymnast(
            *line(tmp_path / "run", f"reward_model={json.dumps({'name': 'gpt-4o', 'args': args})}", "episodes=6")
        )
    assert code == 0, err
    found = summary(tmp_path / "run")
    assert [len(row.votes) for row in rows(tmp_path / "run")] == [5] * 6
    assert found["votes"]["pairwise_agreement"] == pytest.approx(0.4) and found["votes"]["votes"] == 30
    assert found["votes"]["unanimous"] == 0 and found["votes"]["fleiss_kappa"] == pytest.approx(-0.25)
    assert found["cost_usd"] > 0 and {row.value for row in rows(tmp_path / "run")} == {0.0}
    assert "Agreement of votes" in (tmp_path / "run/confusion.html").read_text()
    assert "sk-test" not in "".join(path.read_text() for path in (tmp_path / "run").glob("*.*"))


def test_the_members_of_an_ensemble_are_its_votes(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    """Two judges that go by the right way, one by the left: two to one, on every clip."""
    members = [{"name": "line", "args": {"rule": rule}} for rule in ("right", "right", "left")]
    judge = json.dumps({"name": "ensemble", "args": {"judges": members}})
    code, _, err = gymnast(*line(tmp_path / "run", f"reward_model={judge}"))
    assert code == 0, err
    assert [row.votes for row in rows(tmp_path / "run")] == [[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]] * 10
    found = summary(tmp_path / "run")
    assert found["rates"]["accuracy"]["value"] == 1.0
    # A third of the pairs agree; each answer has half of the votes, so half would by chance.
    assert found["votes"]["fleiss_kappa"] == pytest.approx((1 / 3 - 1 / 2) / (1 - 1 / 2))
    split = json.dumps({"name": "ensemble", "args": {"judges": members[1:]}})
    code, _, err = gymnast(*line(tmp_path / "split", f"reward_model={split}", "max_error_rate=1", "rescore=0"))
    assert code == 0, err
    assert summary(tmp_path / "split")["unscored"]["abstained"] == {"successes": 10, "failures": 10}


def verdict(index: int, success: bool, value: float | None, partial: float | None = None) -> Verdict:
    error = "503: </script><b>boom" if value is None else None
    return Verdict(index, f"c{index}", "go <right>", success, value, partial, [], error, f"reason {index}", 0.0)


def test_the_mistakes_shown_are_those_the_judge_was_surest_of() -> None:
    found = [verdict(i, False, 1.0, 0.5 + i / 20) for i in range(10)] + [verdict(10 + i, True, 1.0) for i in range(8)]
    chosen = chosen_films(found, 0.5, 2)
    assert [row.index for row in chosen] == [9, 8, 10, 14]
    assert [row.case(0.5) for row in chosen] == ["false positive"] * 2 + ["true positive"] * 2
    assert chosen_films(found, 0.5, 0) == []
    assert verdict(0, True, 0.5).case(0.5) == "false negative" and verdict(0, True, None).case(0.5) == CASES[4]


@pytest.fixture
def mixed(gymnast: Command, tmp_path: Path, parts: Any) -> Path:
    """A page with all five cases: 20 clips, judged by a rule that some rows are changed to contradict."""
    run = tmp_path / "mixed"
    assert gymnast(*line(run, "videos=9"))[0] == 0
    changed = [row for row in rows(run)]
    for index, values in {0: (1.0, None), 2: (1.0, None), 1: (0.0, None), 4: (None, "503: </script><b>boom")}.items():
        changed[index] = Verdict(**{**vars(changed[index]), "value": values[0], "error": values[1]})
    RowFile(run / "results.jsonl", Verdict).replace(changed)
    build_confusion_page(run)
    return run


def test_the_page_needs_nothing_but_itself(mixed: Path) -> None:
    page = (mixed / "confusion.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"", page) and "503: </script>" not in page
    videos = re.findall(r"<video[^>]*>", page)
    assert len(videos) == 18
    assert all(re.search(r'aria-label="go right: truly a (success|failure), ', video) for video in videos)
    assert all('poster="data:image/jpeg' in video for video in videos)
    assert all('aria-label="' in svg for svg in re.findall(r"<svg[^>]*>", page))


@pytest.mark.skipif(BINARY is None, reason="needs Chromium")
def test_the_page_in_a_browser(mixed: Path, tmp_path: Path) -> None:
    with Browser(tmp_path / "profile", width=375, height=800) as browser:
        browser.open((mixed / "confusion.html").as_uri())
        browser.wait("document.getElementById('count')?.textContent.includes(' of ')")

        def shown() -> list[str]:
            return browser.value(
                "[...document.querySelectorAll('#films .clip')].filter(f => !f.hidden).map(f => f.dataset.case)"
            )

        assert browser.value("document.documentElement.scrollWidth") <= 375
        everything = shown()
        assert len(everything) == 18 and everything[:3] == ["false positive"] * 2 + ["false negative"]
        browser.value("document.querySelector('.matrix button[data-case=\"false positive\"]').click()")
        assert shown() == ["false positive"] * 2
        browser.value("document.activeElement.blur()")
        browser.press("5")
        assert shown() == ["unscored"]
        browser.press("0")
        assert len(shown()) == 18
        browser.press("j")
        browser.press("j")
        second = "document.querySelectorAll('#films .clip')[1]"
        assert browser.value(f"document.activeElement === {second}") is True
        browser.press("k")
        assert browser.value(f"document.activeElement === {second}") is False
        browser.value(
            "(f => { f.elements.text.value = 'BOOM'; f.dispatchEvent(new Event('input')); })"
            "(document.getElementById('filter'))"
        )
        assert shown() == ["unscored"]
        assert browser.problems == []


def test_a_judge_that_gives_scores(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    """Places to the right: 3 for successes, -3 for failures. What is above the threshold counts as a success."""
    run = tmp_path / "run"
    code, out, err = gymnast(*line(run, "reward_model=distance", "threshold=-5"))
    assert code == 0, err
    found = summary(run)
    assert found["reward_kind"] == "score" and found["rates"]["accuracy"]["value"] == 0.5
    means = found["mean reward by distance"]
    assert (means["successes"]["mean"], means["failures"]["mean"]) == (3.0, -3.0)
    assert means["successes"]["interval"] is None  # all alike: nothing is known of others
    assert json.loads(out[: out.rindex("}") + 1])["mean reward by distance"] == means
    page = (run / "confusion.html").read_text()
    headline = re.findall("<h1.*?>(.*?)</h1>", page)
    assert headline == [
        "A reward above -5 by distance is not shown to do better than one answer to everything: right about 29.9 % to "
        "70.1 % of clips (50.0 % of 20 clips)"
    ]
    assert "<dd>distance</dd>" in page and "<dd>the clips of line-clips</dd>" in page and "<dd>20 judged clips" in page
    assert "Mean reward by distance: 3.000 of 10" in page
    assert '<th scope="row">above -5</th>' in page and '<th scope="row">at most -5</th>' in page
    assert "judged successes" not in page and "reward −3.000" in page
    code, _, err = gymnast(*line(tmp_path / "sharp", "reward_model=distance", "threshold=0"))
    assert code == 0 and summary(tmp_path / "sharp")["rates"]["accuracy"]["value"] == 1.0, err
    coins = "reward_model={name: ensemble, args: {judges: [{name: random}, {name: random}], tie: failure}}"
    code, _, err = gymnast(*line(tmp_path / "coins", coins))
    assert code == 0 and ">ensemble(random, random) flips coins: " in (tmp_path / "coins/confusion.html").read_text()


def test_clips_of_one_camera(gymnast: Command, tmp_path: Path, parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrist camera sees everything the other way round."""
    episodes = parts.Clips.episodes

    def both(self: Any) -> list[Any]:
        return [
            replace(
                one, frames_TVHWC=torch.cat([one.frames_TVHWC, one.frames_TVHWC.flip(3)], 1), cameras=("front", "wrist")
            )
            for one in episodes(self)
        ]

    monkeypatch.setattr(parts.Clips, "episodes", both)
    for camera, accuracy in (("null", 1.0), ("front", 1.0), ("wrist", 0.0)):
        code, _, err = gymnast(*line(tmp_path / camera, f"camera={camera}"))
        assert code == 0 and summary(tmp_path / camera)["rates"]["accuracy"]["value"] == accuracy, err
    code, _, err = gymnast(*line(tmp_path / "none", "camera=wrst"))
    assert code == 2 and "No camera 'wrst'. Did you mean 'wrist'?" in err and "Traceback" not in err
    frames = clip_rollout(both(parts.Clips(parts.Clips.Config(count=1)))[0], 0, "wrist")
    assert frames.cameras == ("wrist",) == frames.task.cameras and frames.frames_TVHWC.shape[:2] == (4, 1)


def test_the_page_is_built_for_whoever_wants_to_see_it(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    run = tmp_path / "run"
    assert gymnast(*line(run))[0] == 0
    page = (run / "confusion.html").read_text()
    (run / "confusion.html").unlink()
    assert hooks.gymnast_build_page(PageWanted(run)) == run / "confusion.html"
    assert (run / "confusion.html").read_text() == page
    (run / "config.yaml").write_text("kind: train\n")
    assert hooks.gymnast_build_page(PageWanted(run)) is None
