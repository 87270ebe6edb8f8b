"""What a command is told: the dataclasses, and how they are filled from presets, files and overrides.

The dataclasses come without what reads YAML, so that hook modules, which every command imports, can name them.
"""

from typing import TYPE_CHECKING, Any

from gymnast_core.config.schema import ComponentConfig, EvaluationConfig, LoopConfig, RunConfig

if TYPE_CHECKING:
    from gymnast_core.config.load import load_config, parse_overrides, split_arguments, to_yaml

__all__ = [
    "ComponentConfig",
    "EvaluationConfig",
    "LoopConfig",
    "RunConfig",
    "load_config",
    "parse_overrides",
    "split_arguments",
    "to_yaml",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gymnast_core.config import load

    return getattr(load, name)
