"""The registries of this process: the one place that knows both where plugins are found and what hooks add."""

from functools import lru_cache

from gymnast_core.plugins.hooks import call_each
from gymnast_core.plugins.registry import Registries


@lru_cache(maxsize=1)
def registries() -> Registries:
    """The registries of this process, `gymnast_register` hooks included."""
    result = Registries()
    call_each("gymnast_register", registries=result)
    return result
