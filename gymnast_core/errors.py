"""Errors that a user can act on: what failed, what exists, what to type next. The CLI prints no traceback of them."""

import difflib
import re
from collections.abc import Iterable, Sequence

_LONGEST_WORD = 400
"""Letters of a word in an error, such as a value that somebody pasted, beyond which nobody reads on."""


class GymnastError(Exception):
    """An error in what the user gave us (config, file, plugin, data); exit code 2, no traceback."""

    def __str__(self) -> str:
        return re.sub(
            rf"\S{{{_LONGEST_WORD},}}", lambda found: f"{found[0][:80]}… ({len(found[0])} letters)", super().__str__()
        )

    @property
    def problems(self) -> "tuple[GymnastError, ...]":
        """What is wrong, one by one: the error itself, unless it stands for several."""
        return (self,)


class ConfigError(GymnastError):
    """A config key, value or override that cannot be used."""


class ConfigErrors(ConfigError):
    """Several things wrong with one config, found together: `problems` lists them."""

    def __init__(self, problems: Sequence[GymnastError]) -> None:
        self._problems = tuple(one for problem in problems for one in problem.problems)
        listed = "".join("\n- " + str(one).replace("\n", "\n  ") for one in self._problems)
        super().__init__(f"{len(self._problems)} things are wrong with the config:{listed}")

    @property
    def problems(self) -> tuple[GymnastError, ...]:
        return self._problems

    def __reduce__(self) -> tuple[type["ConfigErrors"], tuple[tuple[GymnastError, ...]]]:
        return type(self), (self._problems,)


class PluginError(GymnastError):
    """A plugin that cannot be found, imported or built."""


class DataError(GymnastError):
    """A file or array that is missing, corrupt or of the wrong shape."""


class CheckpointError(GymnastError):
    """A checkpoint that is missing, truncated or does not fit the model."""


class StorageError(GymnastError):
    """A file or folder that cannot be written: the disk is full, read-only or forbidden."""


class ContractError(GymnastError, AssertionError):
    """A plugin that breaks an interface's contract; raised by `gymnast_core.testing`."""


def shortened(text: str, limit: int = 200) -> str:
    """A text for an error, on one line: the beginning of what is too long to be read there."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def unknown_name(kind: str, name: str, known: Iterable[str], elsewhere: str = "") -> str:
    """One sentence for a name that does not exist: "No KIND 'nme'. Did you mean 'name'? Known: …".

    `elsewhere` is a sentence on where that very name exists (`gymnast_core.plugins.elsewhere`): then no other is meant.
    """
    names, name = sorted(known), shortened(name, 80)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" {elsewhere}" if elsewhere else f" Did you mean {close[0]!r}?" if close else ""
    return f"No {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}."
