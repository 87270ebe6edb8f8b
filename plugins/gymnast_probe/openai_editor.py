"""Pictures edited by OpenAI's images API (https://platform.openai.com/docs/api-reference/images/createEdit)."""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gymnast_core.errors import ConfigError, DataError
from gymnast_episodes.pictures import read_picture
from gymnast_probe.interfaces import EditorFailed, EditorSpent, Generated, ImageEditor
from gymnast_probe.service import Service


class OpenAIEditor(ImageEditor):
    """Sends the picture and the prompt, takes the first picture that comes back, at the size of the first."""

    @dataclass(frozen=True)
    class Config:
        model: str = "gpt-image-1"
        base_url: str | None = None
        """Of another server with the same interface, without a login; None: OpenAI's."""
        api_key_env: str | None = None
        """Environment variable that holds the key; keys never go into configs. None: OPENAI_API_KEY for OpenAI's own
        server, and no key for any other."""
        size: str = "1024x1024"
        """Pixels that the service works at; the picture is enlarged to it, and the answer made small again."""
        usd_per_image: float = 0.042
        """What an edit is counted as; the services bill by tokens, so check it against your bill."""
        max_usd: float | None = 5.0
        """Edits stop before they would cost more than this in one process; None: no limit."""
        timeout_s: float = 180.0
        max_retries: int = 3

    def __init__(self, config: OpenAIEditor.Config) -> None:
        try:
            self._side = int(config.size.partition("x")[0])
        except ValueError as error:
            raise ConfigError(f"size is {config.size!r}; write WIDTHxHEIGHT, e.g. 1024x1024.") from error
        self.config, self.spent_usd = config, 0.0
        self._service = Service(config, "image editor", "/images/edits")

    def edit(self, image_HWC: NDArray[np.uint8], prompt: str, *, seed: int) -> Generated:
        """The API takes no seed: the same request may be answered by another picture."""
        price, limit = self.config.usd_per_image, self.config.max_usd
        if limit is not None and self.spent_usd + price > limit:
            raise EditorSpent(
                f"The image editor has spent ${self.spent_usd:.2f} of max_usd={limit:g}. Go on with gymnast probe "
                "--resume RUN, and with max_usd of that edit's args higher: what was paid for is kept."
            )
        picture = io.BytesIO()
        Image.fromarray(image_HWC).resize((self._side, self._side), Image.Resampling.LANCZOS).save(picture, "PNG")
        request: dict[str, Any] = {"size": self.config.size, "n": 1}
        file = ("image.png", picture.getvalue(), "image/png")
        budget = None if limit is None else limit - self.spent_usd
        try:
            answer, cost = self._service.ask(
                lambda client: client.images.edit(model=self.config.model, image=file, prompt=prompt, **request),
                price, budget,
            )  # fmt: skip
        except EditorFailed as error:
            self.spent_usd += error.cost_usd or 0.0
            raise
        self.spent_usd += cost or 0.0
        # The client makes its classes of whatever came, unchecked.
        data = getattr(answer, "data", None)
        content = getattr(data[0], "b64_json", None) if isinstance(data, list) and data else None
        if not isinstance(content, str) or not content:
            raise EditorFailed(f"The image editor {self.config.model!r} returned no picture.", cost_usd=cost)
        return Generated(_decode(content, image_HWC.shape, cost), cost_usd=cost)

    def close(self) -> None:
        self._service.close()


def _decode(content: str, shape: tuple[int, ...], cost_usd: float | None) -> NDArray[np.uint8]:
    try:
        picture_HWC = read_picture(base64.b64decode(content, validate=True), "The edited picture")
        image = Image.fromarray(picture_HWC).resize((shape[1], shape[0]), Image.Resampling.LANCZOS)
    except (DataError, binascii.Error) as error:
        raise EditorFailed(
            "The image editor returned something that is no picture of 8 bits a colour.", cost_usd=cost_usd
        ) from error
    return np.asarray(image)
