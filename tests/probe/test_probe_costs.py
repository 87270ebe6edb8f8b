"""What a probe cost is what was paid: also for answers of no use, and for batches that were killed or stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from editing_server import Server, png, said
from evaluation_parts import WORLD, Command, policy
from test_editors import IMAGE, image_editor

from gymnast_core.errors import GymnastError
from gymnast_core.types import Reward
from gymnast_environment.rewards import RandomReward
from gymnast_probe.interfaces import EditorFailed
from gymnast_probe.proposed_instructions import ProposedInstructions

PICTURE = png(np.full((64, 64, 3), 90, np.uint8))
PRICE = 0.042


def probe(gymnast: Command, run: Path, edit: str, *changes: str, count: int = 4) -> tuple[int, str, str]:
    return gymnast(
        "probe", f"policies.first={policy(0)}", f"world_model={WORLD}", "reward_model={name: random}", "horizon=2",
        f"tasks={{name: tabletop, args: {{count: {count}, image_size: 32}}}}", "videos=0", f"output={run}",
        f"edits.new={edit}", *changes,
    )  # fmt: skip


def pictures(server: Server) -> str:
    server.answer = lambda fields: (200, {"created": 1, "data": [{"b64_json": PICTURE}]})
    args = f"{{base_url: '{server.url}', size: 64x64, max_retries: 0}}"
    return f"{{edit: generated-image, prompt: add a cup, args: {args}}}"


def words(server: Server, price: str) -> str:
    return f"{{edit: proposed-instruction, args: {{base_url: '{server.url}', usd_per_request: {price}}}}}"


def summary(run: Path) -> Any:
    return json.loads((run / "summary.json").read_text())


def rows(run: Path) -> list[dict[str, Any]]:
    return [
        row for line in (run / "results.jsonl").read_text().splitlines() if (row := json.loads(line))["world"] == "new"
    ]


def test_what_was_made_for_a_batch_without_rows_is_counted_once(
    server: Server, gymnast: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, score = tmp_path / "run", RandomReward.score

    def failing(self: RandomReward, rollouts: list) -> list[Reward]:
        if server.requests:  # the original tasks are done
            return [Reward(None, error="503", cost_usd=0.5) for _ in rollouts]
        return score(self, rollouts)

    with monkeypatch.context() as outage:
        outage.setattr(RandomReward, "score", failing)
        code, _, err = probe(gymnast, run, pictures(server), "rescore=0")
    assert code == 2 and "503" in err and rows(run) == []
    for again in range(2):  # the second time there is nothing to do, and nothing is counted twice
        code, _, err = gymnast("probe", "--resume", run)
        assert code == 0, err
        assert len(server.requests) == 4, again
        assert [row["cost_usd"] for row in rows(run)] == [PRICE] * 4
        assert summary(run)["cost_usd"] == pytest.approx(4 * PRICE + 4 * 0.5)  # and what the judge was paid
    code, _, err = gymnast("probe", "--resume", run, f"policies.second={policy(1)}")
    assert code == 0, err
    assert summary(run)["cost_usd"] == pytest.approx(4 * PRICE + 4 * 0.5)


def test_a_folder_without_a_list_of_payments_counts_what_it_holds(
    server: Server, gymnast: Command, tmp_path: Path
) -> None:
    """As earlier editions left it: rows of the first batch, pictures of the second, and nothing that says so."""
    run = tmp_path / "run"
    code, _, err = probe(gymnast, run, pictures(server), "batch_size=2")
    assert code == 0, err
    (run / "spending.jsonl").unlink()
    lines = (run / "results.jsonl").read_text().splitlines(keepends=True)
    (run / "results.jsonl").write_text("".join(lines[:-2]))
    code, _, err = gymnast("probe", "--resume", run)
    assert code == 0, err
    assert len(server.requests) == 4 and summary(run)["cost_usd"] == pytest.approx(4 * PRICE)
    assert [row["cost_usd"] for row in rows(run)] == [PRICE] * 4


@pytest.mark.parametrize(("price", "cost"), [("null", None), ("0.25", 0.5), ("0", 0.0)])
def test_an_answer_of_no_use_was_paid_all_the_same(
    price: str, cost: float | None, server: Server, gymnast: Command, tmp_path: Path
) -> None:
    server.answer = lambda fields: said("I cannot.")
    code, _, err = probe(gymnast, tmp_path / "run", words(server, price), "max_error_rate=1", count=2)
    assert code == 0, err
    assert len(server.requests) == 2 and all("JSON array" in row["error"] for row in rows(tmp_path / "run"))
    assert [row["cost_usd"] for row in rows(tmp_path / "run")] == [None if cost is None else cost / 2] * 2
    assert summary(tmp_path / "run")["cost_usd"] == cost


@pytest.mark.parametrize(
    ("answer", "cost"),
    [
        ((400, {"error": {"message": "no"}}), 0.0),
        ((504, {"error": {"message": "too late"}}), 0.25),
        (said("[]"), 0.25),
        (said('["push it"]'), 0.25),
        ((200, {"choices": [{"index": 0}]}), 0.25),
        ((200, ["no completion"]), 0.25),
    ],
)
def test_what_may_be_billed_counts_as_paid(answer: tuple[int, Any], cost: float, server: Server) -> None:
    server.answer = lambda fields: answer
    config = ProposedInstructions.Config(base_url=server.url, usd_per_request=0.25, max_retries=0)
    with pytest.raises(EditorFailed) as caught:
        ProposedInstructions(config).propose(IMAGE, "Push it.", seed=0)
    assert caught.value.cost_usd == cost


def test_every_attempt_that_may_be_billed_counts(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gymnast_probe.service.FIRST_PAUSE_S", 0.0)
    answers = iter([(504, {}), (503, {}), (504, {}), said('["push the cup"]')])
    server.answer = lambda fields: next(answers)
    config = ProposedInstructions.Config(base_url=server.url, usd_per_request=0.25)
    made = ProposedInstructions(config).propose(IMAGE, "push it", seed=0)
    assert made.cost_usd == 0.75 and len(server.requests) == 4


def test_no_attempt_is_made_that_the_budget_cannot_pay(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gymnast_probe.service.FIRST_PAUSE_S", 0.0)
    server.answer = lambda fields: (504, {})
    editor = image_editor(server, usd_per_image=0.4, max_usd=1.0)
    editor._service._config = type(editor.config)(base_url=server.url, max_retries=9)
    with pytest.raises(EditorFailed) as caught:
        editor.edit(IMAGE, "x", seed=0)
    assert caught.value.cost_usd == editor.spent_usd == 0.8 and len(server.requests) == 2


def test_nobody_there_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ProposedInstructions.Config(base_url="http://127.0.0.1:9/v1", max_retries=0)
    with pytest.raises(GymnastError) as caught:
        ProposedInstructions(config).propose(IMAGE, "push it", seed=0)
    assert isinstance(caught.value, EditorFailed) and caught.value.cost_usd == 0.0
