"""Files of weights: equal content, equal bytes."""

import subprocess
import sys

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from gymnast_core.runs.weights import save_weights

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([1, 2], dtype=torch.int64)}
METADATA = {f"key{i}": f'"value" {i} é\n\\' for i in range(12)}


def test_the_same_content_gives_the_same_bytes_in_any_order(tmp_path):
    turned = dict(reversed(METADATA.items()))
    written = []
    for i, metadata in enumerate([METADATA, turned, METADATA, turned]):
        save_weights(tmp_path / f"{i}.safetensors", TENSORS, metadata)
        written.append((tmp_path / f"{i}.safetensors").read_bytes())
    assert len(set(written)) == 1


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, TENSORS, METADATA)
    found = load_file(path)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    with safe_open(path, "pt") as file:
        assert file.metadata() == METADATA
    save_weights(path, TENSORS)
    assert load_file(path).keys() == TENSORS.keys()


def test_another_process_writes_the_same_bytes(tmp_path):
    program = (
        "import sys, torch; from pathlib import Path; from gymnast_core.runs.weights import save_weights; "
        "save_weights(Path(sys.argv[1]), {'x': torch.zeros(2)}, {chr(97 + i): str(i) for i in range(20)})"
    )
    for name in ("one", "two"):
        subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], check=True)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
