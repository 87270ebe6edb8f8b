"""Instructions to token ids: OpenVLA's prompt, and the tokenizer of models that start from scratch."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from gymnast_core.errors import CheckpointError, DataError, GymnastError
from gymnast_core.reading import read_json
from gymnast_openvla_oft.model import END_TOKEN, Prompts

SPACE = "▁"
"""Llama's lone-space token (id 29871 there), with which every prompt ends."""
TOKENIZER_FILE = "tokenizer.json"
SENTENCEPIECE_FILE = "tokenizer.model"
BEGIN_TOKEN = 1
MAX_VOCABULARY = 20_000
SPLIT_MARK = "|"


def prompt(instruction: str) -> str:
    """The text that OpenVLA was trained with."""
    return f"In: What action should the robot take to {instruction.lower()}?\nOut:"


class PromptEncoder:
    """Tokenises prompts; every distinct instruction once."""

    def __init__(self, tokenizer: Tokenizer, pad_token: int) -> None:
        self.tokenizer = tokenizer
        # A tokenizer file may carry padding and truncation from some other use.
        self._plain = Tokenizer.from_str(tokenizer.to_str())
        self._plain.no_padding()
        self._plain.no_truncation()
        self.pad_token = pad_token
        space = tokenizer.token_to_id(SPACE)
        if space is None:
            raise CheckpointError(f"The tokenizer has no lone-space token {SPACE!r}, with which OpenVLA's prompts end.")
        self.space = space
        self._known: dict[str, list[int]] = {}
        begin = self.ids("")
        if END_TOKEN in begin or BEGIN_TOKEN in begin[1:]:
            raise CheckpointError(
                f"The tokenizer puts BOS or the end token (id {END_TOKEN}) into a prompt: {begin}. Llama's does not."
            )

    def ids(self, instruction: str) -> list[int]:
        """Token ids of an instruction's prompt, BOS first, the lone space last."""
        if instruction not in self._known:
            if any("\ud800" <= letter <= "\udfff" for letter in instruction):
                raise DataError(f"The instruction {instruction[:60]!r} holds half a character, which no text does.")
            ids = self._plain.encode(prompt(instruction)).ids
            if ids[:1] != [BEGIN_TOKEN]:
                raise CheckpointError("The tokenizer does not begin a prompt with BOS (id 1), as Llama's does.")
            self._known[instruction] = ids if ids[-1] == self.space else [*ids, self.space]
        return self._known[instruction]

    def check_length(self, instructions: Sequence[str], limit: int, taken: int) -> None:
        """Raise `DataError` for an instruction whose prompt does not fit beside `taken` other positions of `limit`."""
        for text in set(instructions):
            if len(self.ids(text)) + taken > limit:
                raise DataError(
                    f"The prompt of {text[:60]!r}… is {len(self.ids(text))} tokens long; beside {taken} "
                    f"positions for images and actions the model has room for {max(limit - taken, 0)}. Shorten it."
                )

    def __call__(self, instructions: Sequence[str], device: torch.device | str = "cpu") -> Prompts:
        return pad_prompts([self.ids(text) for text in instructions], self.pad_token, device)


def pad_prompts(rows: Sequence[Sequence[int]], pad_token: int, device: torch.device | str = "cpu") -> Prompts:
    """Prompts of any lengths, padded on the right to the longest."""
    longest = max(len(row) for row in rows)
    ids = [[*row, *[pad_token] * (longest - len(row))] for row in rows]
    lengths = [len(row) for row in rows]
    return Prompts(torch.tensor(ids).to(device), torch.tensor(lengths).to(device), even=min(lengths) == longest)


def tokenizer_path(directory: Path, base: Path | None = None) -> Path:
    """The file of a checkpoint's tokenizer, or of its base model's; it need not exist."""
    paths = [place / TOKENIZER_FILE for place in (directory, base) if place is not None]
    return next((path for path in paths if path.is_file()), paths[0])


def load_tokenizer(directory: Path, base: Path | None = None) -> Tokenizer:
    """The fast tokenizer of a checkpoint, or of its base model. Raises `CheckpointError` when there is none."""
    path = tokenizer_path(directory, base)
    if not path.is_file():
        advice = "Copy it from the model that this one was trained from."
        if (directory / SENTENCEPIECE_FILE).is_file():
            advice = (
                f'Its {SENTENCEPIECE_FILE} can be converted: python -c "from transformers import AutoTokenizer; '
                f"AutoTokenizer.from_pretrained('{directory}').save_pretrained('{directory}')\" (needs sentencepiece)."
            )
        raise CheckpointError(f"{directory} holds no {TOKENIZER_FILE}. {advice}")
    try:
        # The reader's own limits (size, depth, encoding) come first: the library has none.
        tokenizer = Tokenizer.from_str(json.dumps(read_json(path, CheckpointError)))
        tokenizer.encode(prompt(""))
    except (GymnastError, KeyboardInterrupt, SystemExit):
        raise
    # The library raises bare Exception for malformed files, and its panics are not even that.
    except BaseException as error:
        raise CheckpointError(f"{path} is not a readable tokenizer: {str(error)[:200]}") from error
    return tokenizer


def train_tokenizer(instructions: Sequence[str]) -> Tokenizer:
    """A byte-pair tokenizer that knows every word of the instructions as one token.

    Keeps Llama 2's conventions (unknown 0, BOS 1, end 2, bytes 3–258 as fallback for anything unseen), so
    that its directory is read like that of a published checkpoint. What every prompt begins and ends with is
    one token each: a small model's sequence is a quarter shorter for it. The same instructions give the same
    tokenizer.
    """
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained = _normalised(Tokenizer(models.BPE()))
    trainer = trainers.BpeTrainer(
        vocab_size=MAX_VOCABULARY, special_tokens=special, initial_alphabet=[SPACE], show_progress=False
    )
    trained.train_from_iterator(sorted({prompt(text) for text in ("", *instructions)}), trainer)
    learned = json.loads(trained.to_str())["model"]
    merges = [tuple(merge) for merge in learned["merges"]]
    # Rebuilt, because the trainer knows bytes only as special tokens and those would match inside of a text.
    tokenizer = Tokenizer(models.BPE(learned["vocab"], merges, unk_token="<unk>", byte_fallback=True))
    tokenizer = _normalised(tokenizer)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def _normalised(tokenizer: Tokenizer) -> Tokenizer:
    """Llama's spaces; a piece is either half of the frame, a word with its space, or punctuation."""
    head, tail = (re.escape(half) for half in prompt(SPLIT_MARK).replace(" ", SPACE).split(SPLIT_MARK))
    pieces = rf"{SPACE}{head[: -len(SPACE)]}(?={SPACE})|{tail}|{SPACE}?\w+|[^\w{SPACE}]+"
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pieces), behavior="isolated")
    return tokenizer
