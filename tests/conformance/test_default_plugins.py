"""The default plugins raise no false alarm: every dataset on small real data, every class by its documentation."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gymnast_core.cli import cli
from gymnast_core.errors import DataError
from gymnast_core.plugins.compose import registries
from gymnast_core.testing import check_dataset
from gymnast_core.testing.component import undocumented

GOLDEN = Path(__file__).parents[1] / "golden"
BRIDGE = {"path": str(GOLDEN / "episodes" / "bridge"), "instruction": "close the drawer"}
EPISODES = {"name": "worldgym-episodes", "args": BRIDGE}


@pytest.mark.parametrize(
    ("name", "args", "methods"),
    [
        ("tabletop", {"count": 4, "image_size": 16}, {"tasks"}),
        ("trials", {"path": str(GOLDEN / "worldgym" / "trials_tree")}, {"tasks"}),
        ("worldgym-episodes", BRIDGE, {"episodes"}),
        ("rlds", {"path": str(GOLDEN / "episodes" / "rlds" / "bridge_dataset")}, {"episodes"}),
        ("episode-starts", {"episodes": EPISODES}, {"tasks"}),
        ("episode-starts", {"episodes": EPISODES, "keyframe": 0.5, "context": 3}, {"tasks"}),
    ],
)
def test_a_default_dataset_keeps_its_contract(name: str, args: dict[str, Any], methods: set[str]) -> None:
    verified = check_dataset(registries().datasets.build(name, args))
    assert {line.partition(":")[0] for line in verified if ":" in line} == methods


@pytest.fixture(scope="module")
def lerobot(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("lerobot") / "out"
    done = CliRunner().invoke(
        cli,
        ["convert", "worldgym-episodes", *(f"{k}={v}" for k, v in BRIDGE.items()), "--to", "lerobot-v3", str(folder)],
    )
    assert done.exit_code == 0, done.output
    return str(folder)


def test_a_converted_dataset_keeps_its_contract(lerobot: str) -> None:
    assert check_dataset(registries().datasets.build("lerobot", {"path": lerobot}))


def test_data_that_is_not_there_is_the_datasets_own_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="folder"):
        check_dataset(registries().datasets.build("worldgym-episodes", {"path": str(tmp_path / "nowhere")}))


def test_every_default_component_documents_itself_and_its_config() -> None:
    bare = []
    for registry in registries():
        for name in registry.names():
            cls: Any = registry.load(name)
            written = any(base.__doc__ for base in cls.__mro__ if base.__module__.startswith("gymnast_"))
            fields = [field for base in cls.Config.__mro__ for field in undocumented(base)]
            bare += [f"{registry.kind} {name}: {fields}"] if fields or not written else []
    assert bare == []
