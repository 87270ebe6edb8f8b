"""What a command is told: the dataclasses, and how they are filled from presets, files and overrides."""

from gymnast_core.config.load import load_config, parse_overrides, to_yaml
from gymnast_core.config.schema import ComponentConfig, EvaluationConfig, LoopConfig, RunConfig

__all__ = [
    "ComponentConfig",
    "EvaluationConfig",
    "LoopConfig",
    "RunConfig",
    "load_config",
    "parse_overrides",
    "to_yaml",
]
