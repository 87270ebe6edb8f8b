"""Which token ids are actions: the last ones of the vocabulary that the tokenizer has, wherever the rows of the
embedding table end.

Published checkpoints bin actions over the last 256 of Llama's 32000 ids (the reference's `ActionTokenizer` asks its
tokenizer for its size). Behind these lie PAD (id 32000) and rows that round the table up, of which there may be any
number: whoever resizes embeddings changes them. A tokenizer of ours has no names for action tokens, so that its ids end
before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from gymnast_core.config.ranges import Range
from gymnast_core.errors import CheckpointError
from gymnast_core.reading import JsonObject

PADDING_ROWS = 64
"""Rows behind the vocabulary in published checkpoints."""
PUBLISHED_BINS = 256
"""The reference's code knows no other number."""
ACTION_IDS_KEY = "action_token_ids"
"""Key of `config.json` under which checkpoints of this package keep the first action token's id, and that after the
last."""
MAX_ROWS = 2**24


def stated_vocabularies(config: JsonObject) -> dict[str, int]:
    """The sizes of the vocabulary that `config.json` states, by what says so; the most direct statement first.

    Raises `CheckpointError` for numbers that cannot be right.
    """
    text = config.object("text_config")
    rows = text.integer("vocab_size", Range(least=1, most=MAX_ROWS), default=32000)
    padding = config.integer("pad_to_multiple_of", Range(least=1, most=rows), default=PADDING_ROWS)
    own, inner = (part.integer("pad_token_id", Range(least=-1, most=MAX_ROWS), default=None) for part in (config, text))
    if None not in (own, inner) and own != inner:
        config.refuse("pad_token_id", f"is {own}, but text_config: pad_token_id is {inner}")
    found = {}
    if ACTION_IDS_KEY in config:
        found[ACTION_IDS_KEY] = config.integers(ACTION_IDS_KEY, Range(least=0, most=rows), length=2)[1]
    if own is not None or inner is not None:
        found["pad_token_id"] = own if own is not None else inner
    found["vocab_size less pad_to_multiple_of"] = rows - padding
    return found


def read_bins(config: JsonObject) -> int:
    """The number of action tokens. Raises `CheckpointError` where nothing but one number says that it is not 256."""
    bins = config.integer("n_action_bins", Range(least=2, most=MAX_ROWS), default=PUBLISHED_BINS)
    if ACTION_IDS_KEY in config:
        first, end = config.integers(ACTION_IDS_KEY, Range(least=0, most=MAX_ROWS), length=2)
        if end - first != bins:
            config.refuse(
                "n_action_bins", f"is {bins}, but {ACTION_IDS_KEY} are the {end - first} ids {first} to {end - 1}"
            )
    elif bins != PUBLISHED_BINS:
        config.refuse(
            "n_action_bins",
            f"is {bins}, and published models have {PUBLISHED_BINS}. Of a model that gymnast trained from scratch, "
            f"state the ids of its action tokens, too: {ACTION_IDS_KEY}: [first, last + 1]",
        )
    return bins


def plain_vocabulary(config: JsonObject) -> int:
    """The size of the vocabulary as `config.json` alone states it."""
    stated = stated_vocabularies(config)
    return next(iter(stated.values())) if ACTION_IDS_KEY in stated else list(stated.values())[-1]


def find_vocabulary(config: JsonObject, tokenizer: Tokenizer, where: str = "tokenizer.json") -> int:
    """The number of ids in use, the last of which are actions; also the id of the padding token.

    Raises `CheckpointError` where the tokenizer, `config.json` and the rows of the embeddings do not fit together.
    """
    stated, bins = stated_vocabularies(config), read_bins(config)
    rows = config.object("text_config").integer("vocab_size", default=32000)
    known = tokenizer_size(tokenizer, where)
    said = ", ".join(f"{name} says {size}" for name, size in stated.items())
    advice = f"({said}). Use the tokenizer, and the embeddings, that the model was trained with."
    if known > rows:
        raise CheckpointError(f"{where} has {known} ids, but the embeddings have {rows} rows {advice}")
    fills = known in stated.values() or known + bins > rows
    if ACTION_IDS_KEY in stated:
        vocabulary, agree = stated[ACTION_IDS_KEY], known <= stated[ACTION_IDS_KEY] - bins
    elif fills:
        vocabulary = known
        agree = known in stated.values() or "pad_token_id" not in stated
    else:
        vocabulary = next(iter(stated.values()))
        agree = len(set(stated.values())) == 1 and known <= vocabulary - bins
    if not agree or not bins <= vocabulary <= rows:
        raise CheckpointError(
            f"{where} and config.json do not say alike which of {rows} ids are actions: the tokenizer has {known} ids "
            f"{advice}"
        )
    return vocabulary


def tokenizer_size(tokenizer: Tokenizer, where: str) -> int:
    """Ids of a tokenizer without those added later (PAD). Raises `CheckpointError` unless they are 0, 1, 2, …"""
    words: Mapping[str, Any] = tokenizer.get_vocab(with_added_tokens=False)
    ids = sorted(words.values())
    if not ids or ids != list(range(len(ids))):
        place = next((i for i, number in enumerate(ids) if i != number), 0)
        raise CheckpointError(
            f"{where}: model: vocab: the ids are not 0, 1, 2, … without gap and repetition (see id {place}), so that "
            "some words would be read as others."
        )
    return len(ids)
