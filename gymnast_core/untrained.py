"""What is said, once, where a network acts that nobody trained."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn


class Untrained:
    """A warning that waits for a network to act, and is dropped once it is trained or weights are loaded into it.

    Weights that are loaded are a training's: those of a snapshot from which a fit goes on, or of another process.
    """

    def __init__(self, network: nn.Module, message: str | None, log: logging.Logger) -> None:
        """`message` is what to say; None where the network was built from a checkpoint."""
        self._message, self._log = message, log
        network.register_load_state_dict_post_hook(self._loaded)

    def trained(self) -> None:
        """There is nothing to say any more: the network learns."""
        self._message = None

    def tell(self) -> None:
        """The network is about to act."""
        if self._message is not None:
            self._log.warning(self._message)
            self._message = None

    def _loaded(self, network: nn.Module, keys: Any) -> None:
        self.trained()
