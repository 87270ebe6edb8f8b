"""Every break of a contract is caught, for its own reason, with the place where the contract is written."""

import importlib
import re

import pytest
from exhibits import Exhibit
from museum import MUSEUM, Museum

from gymnast_core.errors import ContractError

SOUND = Exhibit("as it is made", "", ())


@pytest.mark.parametrize("kind", MUSEUM)
def test_what_gymnast_new_makes_keeps_its_contract(museum: Museum, kind: str) -> None:
    assert len(museum.check(kind, SOUND)) >= 3


@pytest.mark.parametrize(
    ("kind", "exhibit"),
    [
        pytest.param(kind, exhibit, id=f"{kind}: {exhibit.title}")
        for kind, exhibits in MUSEUM.items()
        for exhibit in exhibits
    ],
)
def test_a_broken_plugin_is_caught_for_its_own_reason(museum: Museum, kind: str, exhibit: Exhibit) -> None:
    with pytest.raises(ContractError) as caught:
        museum.check(kind, exhibit)
    message = str(caught.value)
    assert re.search(exhibit.reason, message, flags=re.DOTALL)
    assert re.fullmatch(r"\w+\.\w+: expected .*; got .*\. See gymnast_core\.\S+\.", message, flags=re.DOTALL)
    module, *path = re.findall(r"See gymnast_core\.(\S+)\.$", message)[0].split(".")
    place = importlib.import_module(f"gymnast_core.{module}")
    for name in path:
        assert name in {*vars(place), *getattr(place, "__annotations__", {})}, message
        place = vars(place).get(name)
