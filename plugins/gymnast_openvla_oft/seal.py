"""What weights know of the files that they were saved with, so that a file which was changed or mixed up is found out.

No tensor shows how many heads a tower has, which crop the frames went through or what a word's id means. A checkpoint
that this package wrote says it twice: in its JSON files, and in the metadata of its weights.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any

from gymnast_core.errors import CheckpointError, shortened
from gymnast_core.reading import as_object, parse_json

METADATA_KEY = "gymnast_files"
"""Of the weights' metadata (safetensors)."""
CONFIG_KEYS = (
    "action_bounds", "action_token_ids", "cameras", "center_crop", "image_resize_strategy", "image_sizes",
    "llm_max_length", "n_action_bins", "num_actions_chunk", "num_images_in_input", "pad_to_multiple_of", "pad_token_id",
    "preparation", "text_config", "timm_model_ids", "tiny_timm_kwargs", "use_fused_vision_backbone", "use_proprio",
)  # fmt: skip
PREPROCESSOR_KEYS = ("image_resize_strategy", "input_sizes", "interpolations", "means", "stds")

logger = logging.getLogger(__name__)


def seal(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any], norm_stats: Mapping[str, Any], tokenizer: bytes
) -> dict[str, str]:
    """The metadata of weights that are saved beside these files; of statistics and tokenizer, their digests."""
    content = {
        "config": {key: config.get(key) for key in CONFIG_KEYS},
        "preprocessor": {key: preprocessor.get(key) for key in PREPROCESSOR_KEYS},
        "statistics": {name: _digest(_canonical(found)) for name, found in norm_stats.items()},
        "tokenizer": _digest(tokenizer),
    }
    return {METADATA_KEY: _canonical(content).decode()}


def check_seal(metadata: Mapping[str, str], found: Mapping[str, str], paths: Mapping[str, str]) -> None:
    """Compare the seal in weights' `metadata` with that which their files, as they are now, would get (`found`).

    `paths` are those of "config", "preprocessor", "statistics" and "tokenizer". Weights without a seal pass. Raises
    `CheckpointError` for a file that is not the one that they were saved with; other statistics are logged alone,
    because a robot's are a matter of the user's.
    """
    if METADATA_KEY not in metadata:
        return
    place = f"{paths['weights']} (metadata)"
    contents = (parse_json(held[METADATA_KEY], place, CheckpointError) for held in (metadata, found))
    saved, now = (as_object(content, place, CheckpointError) for content in contents)
    advice = "Undo that; what a policy does is changed by its options (policy.args)."
    for file in ("config", "preprocessor"):
        before, after = saved.object(file).values, now.object(file).values
        for key, value in after.items():
            if before.get(key) != value:
                present, sealed = (shortened(json.dumps(held.get(key))) for held in (after, before))
                said = f"{key} is {present}, but the weights were saved with {sealed}"
                raise CheckpointError(f"{paths[file]}: {said}: the file was changed, or is another model's. {advice}")
    if saved.text("tokenizer") != now.text("tokenizer"):
        raise CheckpointError(f"{paths['tokenizer']} is not the file that the weights were saved with. {advice}")
    if saved.object("statistics").values != now.object("statistics").values:
        logger.warning("%s has other statistics than those that the weights were saved with.", paths["statistics"])


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
