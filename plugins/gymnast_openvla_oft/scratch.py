"""What stands in the place of a checkpoint's files where a model begins from scratch."""

from __future__ import annotations

from tokenizers import Tokenizer

from gymnast_openvla_oft.architecture import Architecture, checkpoint_config, preprocessor_config
from gymnast_openvla_oft.checkpoint import Description
from gymnast_openvla_oft.prompt import train_tokenizer


def from_scratch(architecture: Architecture, unnorm_key: str | None) -> tuple[Description, Tokenizer]:
    """The description and the tokenizer of a new model; `unnorm_key` names its statistics (None: "scratch")."""
    tokenizer = train_tokenizer(architecture.tokenizer_corpus)
    described = checkpoint_config(architecture, tokenizer.get_vocab_size(), unnorm_key or "scratch")
    preprocessor = preprocessor_config(architecture.image_size)
    return Description(described, preprocessor, described["norm_stats"]), tokenizer
