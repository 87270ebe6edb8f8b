"""Checkpoints from the Hugging Face hub, or a clear error."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from oft_cases import greedy, load_tiny

from gymnast_core.errors import CheckpointError, ConfigError


class TestHub:
    @pytest.fixture(autouse=True)
    def offline(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        cache = tmp_path / "cache"
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        return cache

    def test_a_downloaded_repository(self, words: Path, offline: Path) -> None:
        repository, commit = offline / "models--someone--openvla-tiny", "0" * 39 + "1"
        shutil.copytree(words, repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        for name in ("main", "v2"):
            (repository / "refs" / name).write_text(commit)
        chunk = greedy(load_tiny(words))
        for revision in (None, "v2", commit):
            found = greedy(load_tiny("someone/openvla-tiny", revision=revision))
            assert torch.equal(found.log_prob_BLD, chunk.log_prob_BLD)
        with pytest.raises(CheckpointError, match=r"revision 'v3' cannot be reached, nor is it in the local cache"):
            load_tiny("someone/openvla-tiny", revision="v3")

    def test_offline(self) -> None:
        with pytest.raises(
            CheckpointError, match=r"'someone/nothing' is no local folder, .*`hf download someone/nothing`"
        ):
            load_tiny("someone/nothing")

    @pytest.mark.parametrize("path", ["/nowhere/at/all", "./checkpoint", "one/two/three", "nothing", "runs/policy"])
    def test_paths_are_not_repositories(self, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("runs").mkdir()
        with pytest.raises(CheckpointError, match=r"There is no folder .* RUN/checkpoint, which `gymnast fit"):
            load_tiny(path)

    def test_a_file(self, words: Path) -> None:
        with pytest.raises(CheckpointError, match=r"is a file; policy\.args\.checkpoint is a folder"):
            load_tiny(words / "model.safetensors")

    def test_a_folder_has_no_revision(self, words: Path) -> None:
        with pytest.raises(ConfigError, match=r"revision 'v2' is of a hub repository.* Leave the revision out"):
            load_tiny(words, revision="v2")
