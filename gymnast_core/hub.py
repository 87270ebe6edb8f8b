"""Where a checkpoint lies: a folder or file of this machine, or a repository of the Hugging Face hub."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gymnast_core.errors import CheckpointError, ConfigError

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def locate(
    name: str,
    revision: str | None = None,
    *,
    files: Sequence[str],
    key: str,
    takes_file: bool = False,
    instead: str = "one that exists, or to a hub repository",
) -> Path:
    """The local path of what a config names: a folder, or a hub repository "owner/name", downloaded when needed.

    `files` are the patterns of what is downloaded. `key` is the config's key that holds the name, and `instead` says
    what an error advises to set it to; with `takes_file`, it may be a file, too. Imports nothing heavy.

    Raises `ConfigError` for a revision beside a folder, which has none, and `CheckpointError` for what does not exist
    and for a repository that cannot be had, offline without a copy in the cache, say.
    """
    path = Path(name).expanduser()
    if path.is_dir() or (takes_file and path.is_file()):
        if revision is not None:
            raise ConfigError(
                f"The revision {revision!r} is of a hub repository, and {key} is {path} of this machine, which has "
                "none. Leave the revision out."
            )
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file; {key} is a folder. Set {key} to {instead}.")
    # A misspelt path into a folder that exists is no reason to ask the hub.
    if REPOSITORY.fullmatch(name) is None or path.parent.is_dir():
        what = "folder or file" if takes_file else "folder"
        raise CheckpointError(f"There is no {what} {path}. Set {key} to {instead}.")
    return _download(name, revision, files, key)


def args_of_saved(args: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The arguments of a component, to load instead what it saved in `folder`.

    A revision is left out: it is one of the repository that the component began with.
    """
    return {**{key: value for key, value in args.items() if key != "revision"}, "checkpoint": str(folder)}


def config_of_saved(config: Any, folder: Path) -> Any:
    """As `args_of_saved`, of a component's `Config`, which has a field `checkpoint`."""
    begun = {"revision": None} if hasattr(config, "revision") else {}
    return dataclasses.replace(config, checkpoint=str(folder), **begun)


def _download(repository: str, revision: str | None, files: Sequence[str], key: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = f"{repository!r} is no local folder, and on the Hugging Face hub "
    name = revision or "main"
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files)))
    except GatedRepoError as error:
        raise CheckpointError(f"{what}it wants its terms accepted: log in with `hf auth login`.") from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{what}it has no revision {name!r}.") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"{what}it does not exist, or is private: see `hf auth login`.") from error
    except HFValidationError as error:
        raise CheckpointError(f"{what}no repository can have such a name. Set {key} to a folder.") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise CheckpointError(
            f"{what}its revision {name!r} cannot be reached, nor is it in the local cache "
            f"({type(error).__name__}). Download it where there is a network (`hf download {repository}`), or set "
            f"{key} to a folder."
        ) from error
