"""Errors stay readable whatever they quote."""

import pytest

from gymnast_core.config import RunConfig, load_config
from gymnast_core.errors import ConfigError
from gymnast_core.training.trainer import precision_of


def test_a_value_that_somebody_pasted_is_cut_in_the_error():
    with pytest.raises(ConfigError) as error:
        precision_of({"precision": "x" * 5000})
    assert "… (50" in str(error.value) and len(str(error.value)) < 400


def test_paths_and_sentences_stay_whole():
    text = "/data/" + "a/" * 150 + "config.json cannot be read: " + "word " * 200
    assert str(ConfigError(text)) == text


@pytest.mark.parametrize("key", ["optimizer", "trainer.precision", "tasks.args.split", "seed", "x" * 3000])
def test_a_long_override_is_one_short_error(key, caplog):
    from gymnast_core.plugins.registry import registries

    with pytest.raises(ConfigError) as error:
        config = load_config(RunConfig, "tabletop", [f"{key}={'y' * 5000}"])
        registries().datasets.configure(config.tasks.name, config.tasks.args, key="tasks")
        precision_of(config.trainer)
        raise ConfigError(config.optimizer.name)
    assert len(str(error.value)) < 600
    assert len(caplog.text) < 600
