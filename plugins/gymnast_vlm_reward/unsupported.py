"""What a model does not support: found out once, said once, and done without where the meaning stays."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gymnast_vlm_reward.config import KEY, ServiceConfig
from gymnast_vlm_reward.replies import RefusedError

log = logging.getLogger(__name__)

_BAD_REQUEST = (0, 400, 404, 405, 415, 422, 501)
_USUAL_TEMPERATURE = 1.0
_INSTEAD = {
    "response_format": f"{KEY}.structured=false asks for a last line instead",
    "tools": f"{KEY}.structured=false asks for a last line instead",
    "tool_choice": f"{KEY}.structured=false asks for a last line instead",
    "temperature": f"{KEY}.temperature=null leaves it to the model",
}


class Unsupported:
    """The fields that a server refused."""

    def __init__(self, config: ServiceConfig) -> None:
        self._config = config
        self.fields: set[str] = set()
        """Those that are not sent any more."""

    def field(self, error: RefusedError, fields: Sequence[str]) -> str | None:
        """Which of the request's fields the error is about."""
        return error.names(fields) if error.status in _BAD_REQUEST else None

    def leave_out(self, field: str, instead: str) -> None:
        """Send it no more."""
        if field not in self.fields:
            self.fields.add(field)
            log.warning("The model %r does not support %s: %s.", self._config.model, field, instead)

    def leave_out_limit(self, error: RefusedError, field: str) -> None:
        """Without a limit on the answer's length nobody knows what it may cost: only where no budget is to be kept."""
        if self._config.max_usd is not None:
            error.fatal = True
            error.args = (
                f"{error} Without a limit on tokens {KEY}.max_usd cannot be kept; {KEY}.max_usd=null does without it.",
            )
            raise error
        self.leave_out(field, f"answers may be longer than {KEY}.max_tokens={self._config.max_tokens}")

    def leave_out_option(self, error: RefusedError, field: str) -> None:
        """Send what the user has set no more, if the model does the same of itself; else raise what to set instead."""
        if field == "temperature" and self._config.temperature == _USUAL_TEMPERATURE:
            self.leave_out(field, f"it samples at its own; {KEY}.temperature=null says the same")
            return
        error.fatal = True
        error.args = (f"{error} The model {self._config.model!r} does not support {field}: {_INSTEAD[field]}.",)
        raise error
