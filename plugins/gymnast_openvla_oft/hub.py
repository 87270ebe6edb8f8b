"""Where a checkpoint lies: a local directory, or a repository of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from gymnast_core.config.presets import fitted_by
from gymnast_core.errors import CheckpointError

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
FILES = ("*.json", "*.safetensors", "*.pt", "*.model", "*.py")
"""What a download fetches: configs, tokenizers, weights. Code comes along for a later save and is never run."""


def locate(checkpoint: str, revision: str | None = None, files: Sequence[str] = FILES) -> Path:
    """The local directory of a checkpoint: a path, or a hub repository "owner/name", downloaded when needed.

    Raises `CheckpointError` for a directory that does not exist and for a repository that cannot be had, offline
    without a copy in the cache, say.
    """
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file; policy.args.checkpoint is the directory that holds config.json.")
    # A misspelt path into a folder that exists is no reason to ask the hub.
    if REPOSITORY.fullmatch(checkpoint) is None or path.parent.is_dir():
        raise CheckpointError(
            f"There is no checkpoint directory {path}. Set policy.args.checkpoint to one: a published OpenVLA or "
            f"OpenVLA-OFT, or RUN/checkpoint, which `{fitted_by('openvla-oft')}` writes."
        )
    return _download(checkpoint, revision, files)


def _download(repository: str, revision: str | None, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = f"{repository!r} is no local directory, and on the Hugging Face hub "
    name = revision or "main"
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files)))
    except GatedRepoError as error:
        raise CheckpointError(f"{what}it wants its terms accepted: log in with `hf auth login`.") from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{what}it has no revision {name!r}.") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"{what}it does not exist, or is private: see `hf auth login`.") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise CheckpointError(
            f"{what}its revision {name!r} cannot be reached, nor is it in the local cache "
            f"({type(error).__name__}). Download it where there is a network (`hf download {repository}`), or set "
            "policy.args.checkpoint to a directory."
        ) from error
