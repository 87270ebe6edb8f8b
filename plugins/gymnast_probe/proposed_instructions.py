"""Instructions that a vision-language model proposes for a picture, through any OpenAI-compatible server."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gymnast_core.errors import ConfigError
from gymnast_probe.interfaces import EditorFailed, Generated, InstructionEditor
from gymnast_probe.service import Service

PROMPT = (
    "The picture shows what a robot sees. It was told: {instruction}\n"
    "Propose {count} other instructions, of the same kind and as short, that this robot could fulfil from here in the "
    "same time, with other objects, places or directions. Name only what the picture shows. "
    'Answer with a JSON array of strings and nothing else, like ["...", "..."].'
)


class ProposedInstructions(InstructionEditor):
    """Asks once for each start frame; anything but a JSON array of sentences is an error, never an instruction."""

    @dataclass(frozen=True)
    class Config:
        model: str = "gpt-4o"
        base_url: str | None = None
        """Of an OpenAI-compatible server, without a login; None: OpenAI's."""
        api_key_env: str | None = None
        """Environment variable that holds the key; keys never go into configs. None: OPENAI_API_KEY for OpenAI's own
        server, and no key for any other."""
        count: int = 4
        """Instructions asked for; the probe draws one of them."""
        min_pixels: int = 256
        """Smaller pictures are enlarged by whole factors to at least this height."""
        max_tokens: int = 300
        temperature: float = 0.0
        usd_per_request: float | None = None
        """What a request is counted as in the probe's costs; 0 for a server of your own. None: not known."""
        timeout_s: float = 60.0
        max_retries: int = 3

    def __init__(self, config: ProposedInstructions.Config) -> None:
        if config.count < 1:
            raise ConfigError(f"count is {config.count}; it must be at least 1.")
        self.config = config
        self._service = Service(config, "instruction editor", "/chat/completions")

    def propose(self, image_HWC: NDArray[np.uint8], instruction: str, *, seed: int) -> Generated:
        config = self.config
        text = PROMPT.format(instruction=json.dumps(instruction), count=config.count)
        url = f"data:image/png;base64,{_png(image_HWC, config.min_pixels)}"
        content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
        answer, cost = self._service.ask(
            lambda client: client.chat.completions.create(
                model=config.model, messages=[{"role": "user", "content": content}],  # type: ignore[misc, list-item]
                max_tokens=config.max_tokens, temperature=config.temperature, seed=seed,
            ),
            config.usd_per_request,
        )  # fmt: skip
        # The client makes its classes of whatever came, unchecked.
        choices = getattr(answer, "choices", None)
        message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
        said = getattr(message, "content", None)
        said = self._service.fit(said) if isinstance(said, str) else ""
        return Generated(instructions=read_instructions(said, instruction, cost), cost_usd=cost)

    def close(self) -> None:
        self._service.close()


def read_instructions(text: str, original: str, cost_usd: float | None = 0.0) -> tuple[str, ...]:
    """The instructions in a model's answer, without the original. Raises `EditorFailed`, with what the answer cost, if
    there are none."""
    found = re.search(r"\[.*\]", text, flags=re.DOTALL)
    try:
        items = json.loads(found.group()) if found else None
    except ValueError:
        items = None
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise EditorFailed(
            f"The instruction editor did not answer with a JSON array of strings: {text[:200]!r}", cost_usd=cost_usd
        )
    plain = [" ".join(item.split()).rstrip(".") for item in items]
    same = original.strip().rstrip(".").lower()
    kept = tuple(dict.fromkeys(item for item in plain if item and len(item) <= 300 and item.lower() != same))
    if not kept:
        raise EditorFailed(f"The instruction editor proposed nothing new: {text[:200]!r}", cost_usd=cost_usd)
    return kept


def _png(image_HWC: NDArray[np.uint8], min_pixels: int) -> str:
    factor = max(1, -(-min_pixels // image_HWC.shape[0]))
    buffer = io.BytesIO()
    Image.fromarray(image_HWC.repeat(factor, 0).repeat(factor, 1)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
