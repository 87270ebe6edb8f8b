"""What a matrix means, and what is refused before anything runs."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gymnast_bench import bench, command
from gymnast_bench.config import BenchConfig
from gymnast_bench.matrix import cells_of, check_names, run_config, warnings_of
from gymnast_core import cli
from gymnast_core.config import RunConfig, load_config
from gymnast_core.config.typed import typed
from gymnast_core.errors import ConfigError
from gymnast_core.plugins.compose import registries

AXES = {
    "optimizer": {"grpo": [], "iter": ["optimizer=iter-sft"]},
    "loop.horizon": ["loop.horizon=8", ["loop.horizon=16", "loop.iterations=3"]],
}


def config(**changes: Any) -> BenchConfig:
    return typed(BenchConfig, {"base": "tabletop", "axes": AXES, **changes})


def test_cells_are_the_product_without_what_is_excluded() -> None:
    cells = cells_of(config(seeds=[3, 4], exclude=[{"optimizer": "iter", "loop.horizon": "loop.horizon=8"}]))
    assert [cell.title for cell in cells] == [
        "grpo, loop.horizon=8, seed 3", "grpo, loop.horizon=8, seed 4",
        "grpo, loop.horizon=16 loop.iterations=3, seed 3", "grpo, loop.horizon=16 loop.iterations=3, seed 4",
        "iter, loop.horizon=16 loop.iterations=3, seed 3", "iter, loop.horizon=16 loop.iterations=3, seed 4",
    ]  # fmt: skip
    assert cells[-1].overrides == ("optimizer=iter-sft", "loop.horizon=16", "loop.iterations=3", "seed=4")
    assert len({cell.name for cell in cells}) == 6


def test_later_overrides_win_and_adjustments_last() -> None:
    cells = cells_of(
        config(
            overrides=["loop.horizon=4", "loop.iterations=1"],
            adjust=[{"when": {"optimizer": "grpo"}, "overrides": ["loop.iterations=9"]}],
        )
    )
    assert cells[0].overrides == (
        "loop.horizon=4", "loop.iterations=1", "loop.horizon=8", "loop.iterations=9", "seed=0",
    )  # fmt: skip
    assert "loop.iterations=9" not in cells[-1].overrides


def test_a_cells_folder_does_not_depend_on_the_other_cells() -> None:
    one = {cell.title: cell.name for cell in cells_of(config())}
    more = {cell.title: cell.name for cell in cells_of(config(seeds=[5, 0]))}
    assert len(more) == 8 and one.items() <= more.items()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": {"a": {"x": ["loop.horzon=3"]}}}, "The cell x, seed 0 has no usable.*Did you mean 'horizon'"),
        ({"axes": {"a": "grpo"}}, r"axes.a is 'grpo'; write \{label"),
        ({"axes": {"a": {"x": ["grpo"]}}}, r"axes.a.x is .*write overrides"),
        ({"axes": {"a": ["loop.horizon=4", "loop.horizon=4"]}}, "a value twice"),
        ({"axes": {"seed": [["seed=1"]]}}, r"Set seeds="),
        ({"overrides": ["output=x"]}, "output=FOLDER"),
        ({"exclude": [{"optimiser": "grpo"}]}, r"exclude\[0\]: No axis 'optimiser'. Did you mean 'optimizer'"),
        ({"exclude": [{"optimizer": "ppo"}]}, r"exclude\[0\]: No value of optimizer 'ppo'"),
        ({"adjust": [{"if": {}, "overrides": []}]}, r"adjust\[0\]"),
        ({"exclude": [{"seed": 0}]}, "exclude leaves nothing"),
        ({"executor": "slurm"}, "No executor 'slurm'"),
        ({"seeds": [1, 1]}, "each once"),
        ({"budget": {"minutes": -1}}, "budget.minutes is -1"),
        ({"base": "tabeltop"}, "Did you mean 'tabletop'"),
    ],
)  # fmt: skip
def test_a_matrix_that_cannot_run_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cells_of(config(**changes))


def test_the_preset_of_ablations_is_a_matrix_that_can_run() -> None:
    cells = cells_of(load_config(BenchConfig, "bench-tabletop-ablations"))
    configs = {cell.labels["algorithm"]: run_config(cell) for cell in cells}
    assert len(configs) == 10
    assert configs["sft only"].loop.iterations == 0 and configs["rloo"].optimizer.name == "rloo"
    assert configs["no normalisation"].optimizer.args["normalise_std"] is False
    assert configs["no clip-higher"].optimizer.args["clip_high"] == 0.2
    assert configs["hot (temperature 1.4)"].loop.temperature == 1.4
    assert "gap" in configs["simulator with a gap"].tasks.args and "gap" not in configs["simulator"].tasks.args
    for config in configs.values():
        registries().optimizers.build(config.optimizer.name, config.optimizer.args)
        registries().datasets.build(config.tasks.name, config.tasks.args)


def test_ray_that_is_missing_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    matrix = tmp_path / "matrix.yaml"
    matrix.write_text(f"kind: bench\nbase: tabletop\nexecutor: ray\noutput: {tmp_path / 'out'}\n")
    monkeypatch.setattr(sys, "argv", ["gymnast", "bench", str(matrix)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    written = capsys.readouterr().err
    assert stop.value.code == 2 and "Traceback" not in written
    assert "pip install 'gymnast[ray]'" in written and "executor=local" in written


def test_cells_that_were_lost_with_their_machine_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix, folder = tmp_path / "matrix.yaml", tmp_path / "out"
    matrix.write_text(f"kind: bench\nbase: tabletop\nseeds: [1, 2]\noutput: {folder}\n")
    # As it is when a cluster's machine goes: the cells come back without a result.
    monkeypatch.setattr(bench, "run_cells", lambda folders, *_: iter(folders))
    monkeypatch.setattr(sys, "argv", ["gymnast", "bench", str(matrix)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    written = capsys.readouterr().err
    assert stop.value.code == 1
    assert f"2 of 2 cells were lost with their machine; to go on with them: gymnast bench --resume {folder}" in written


@pytest.mark.parametrize(
    "key",
    [
        "world_model", "policy", "reward_model", "optimizer", "tasks", "demonstrations", "engine", "evaluation.world",
        "evaluation.reward_model", "evaluation.tasks",
    ],
)  # fmt: skip
def test_a_plugin_that_is_not_there_is_refused_wherever_it_stands(key: str) -> None:
    check_names(cells_of(config()))
    cells = cells_of(config(axes={"part": {"there": [], "gone": [f"{key}=unheard-of"]}}))
    with pytest.raises(
        ConfigError, match=rf"The cell gone, seed 0 has no usable config: {re.escape(key)}: .*unheard-of"
    ):
        check_names(cells)


DROPPED = (
    "optimizer is now 'iter-sft': dropped the arguments meant for 'grpo': group_size, accuracy_bounds, learning_rate, "
    "warmup_updates, learning_rate_decay_updates, minibatch_size, epochs. (the cell iter, loop.horizon=8, seed 3, and "
    "3 more)"
)


def test_what_a_swap_drops_is_said_once_and_not_logged_at_every_reading(caplog: pytest.LogCaptureFixture) -> None:
    cells = cells_of(config(seeds=[3, 4]))
    assert warnings_of(cells) == [DROPPED]
    assert caplog.records == []
    assert warnings_of([cell for cell in cells if cell.labels["optimizer"] == "grpo"]) == []
    assert not logging.getLogger(load_config.__module__).handlers
    load_config(RunConfig, "tabletop", ["optimizer=iter-sft"])  # a command of its own says it still
    assert len(caplog.records) == 1


def test_a_bench_says_what_a_swap_drops_before_its_first_cell_and_on_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said = []

    def run_cells(folders: list[Path], *_: Any) -> list[Path]:
        said.append([record.getMessage() for record in caplog.records])
        assert len(folders) == 8
        return []

    monkeypatch.setattr(bench, "run_cells", run_cells)
    bench.bench_command(config(seeds=[3, 4], output=str(tmp_path / "out")))
    assert said == [[DROPPED]]
    page = (tmp_path / "out/report.html").read_text()
    assert page.count("dropped the arguments meant for") == 1 and "learning_rate, warmup_updates" in page


def test_the_matrix_that_the_help_shows_keeps_the_learning_rate() -> None:
    """Of the preset tabletop 1.5e-4; an optimizer that is named without arguments would take 5e-6."""
    help_text = command.bench.help or ""
    shown = re.search(r"# matrix\.yaml\n(.*?)\n\n", help_text, flags=re.DOTALL)
    assert shown is not None
    values = yaml.safe_load(shown[1])
    assert values.pop("kind") == "bench"
    cells = cells_of(typed(BenchConfig, values))
    rates = {cell.labels["optimizer"]: float(run_config(cell).optimizer.args["learning_rate"]) for cell in cells}
    assert rates == {"grpo": 1.5e-4, "rloo": 1.5e-4}
