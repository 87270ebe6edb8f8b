"""One policy crosses: an OpenVLA-OFT directory with wrist camera and proprioception runs in LIBERO, here and served.

Runs beside gymnast, where GYMNAST_LIBERO_PYTHON names an interpreter with LIBERO; takes a few minutes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnast_core", reason="gymnast is not installed in this interpreter")

from gymnast_libero.conventions import oriented
from gymnast_libero.random_policy import write_random_policy

PACKAGES = Path(__file__).parents[2]
FAMILY = (
    "{name: stove, id: 'gymnast_libero:gymnast/Libero-v0', count: 1, "
    "args: {suite: libero_goal, task: 7, rendering: fast}}"
)
CLI = (sys.executable, "-m", "gymnast_core.cli")
TRAINED_WITH = ("cameras=[front,wrist]", "chunk_length=8", "center_crop=true", "action_bounds=q99")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_policy(tmp_path_factory.mktemp("policy") / "openvla-oft")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables with this package and gymnast-remote installed beside gymnast."""
    for needed in ("aiohttp", "msgpack"):
        pytest.importorskip(needed, reason=f"gymnast-remote needs {needed}")
    target, ignored = tmp_path_factory.mktemp("site"), shutil.ignore_patterns("tests", "build", "*.egg-info")
    for name in ("gymnast-libero", "gymnast-remote"):
        source = shutil.copytree(PACKAGES / name, tmp_path_factory.mktemp("source") / name, ignore=ignored)
        options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", *options, str(source)], check=True)
    known = [str(target), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(known), "OMP_NUM_THREADS": "1"}


@contextmanager
def serving(policy: Path, variables: dict[str, str]) -> Iterator[str]:
    """`gymnast serve`, and its address."""
    command = [*CLI, "serve", "openvla-oft", f"checkpoint={policy}", *TRAINED_WITH, "preparation=jpeg-lanczos"]
    process = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True, env=variables)
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+?(?=/act)", process.stdout.readline())
        assert found is not None
        yield found[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_it_has_the_published_layout(policy):
    names = {path.name for path in policy.iterdir()}
    assert {
        "action_head--150000_checkpoint.pt",
        "proprio_projector--150000_checkpoint.pt",
        "model.safetensors",
    } <= names
    assert "num_images_in_input" not in json.loads((policy / "config.json").read_text())
    statistics = json.loads((policy / "dataset_statistics.json").read_text())["libero_spatial_no_noops"]
    assert len(statistics["proprio"]["q01"]) == 8 and statistics["action"]["mask"] == [True] * 6 + [False]


def test_a_policy_sees_the_same_whether_it_or_the_environment_rotates():
    images = pytest.importorskip("gymnast_openvla_oft.images")
    rendered = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    here, there = oriented(rendered, "published"), oriented(rendered, "raw")
    np.testing.assert_array_equal(
        images.jpeg_lanczos(here, 56, rotate=False), images.jpeg_lanczos(there, 56, rotate=True)
    )


def test_it_acts_in_libero_by_itself_and_served_alike(policy, libero_python, installed, tmp_path):
    output = tmp_path / "results"
    with serving(policy, installed) as address:
        far = (
            f"{{url: '{address}', cameras: [front, wrist], image_keys: [image, wrist_image], state_key: state, "
            "state_width: 8, chunk_length: 8, action_dim: 7}"
        )
        command = [*CLI, "evaluate", "evaluate-libero", f"policy.args.checkpoint={policy}"]
        command += ["policies.far.name=remote", f"policies.far.args={far}", f"tasks.args.environments=[{FAMILY}]"]
        command += [f"world_model.args.hosting.python={libero_python}", "horizon=16", "videos=1", f"output={output}"]
        done = subprocess.run(command, capture_output=True, text=True, env=installed)
    assert done.returncode == 0, done.stderr
    own, served = (json.loads(line) for line in (output / "results.jsonl").read_text().splitlines())
    assert (own["policy"], served["policy"]) == ("openvla-oft", "far")
    assert own["instruction"] == served["instruction"] == "turn on the stove"
    assert own["error"] is None and served["error"] is None and own["outcome"] == served["outcome"] == 0.0
    # The same two cameras, readings and actions at every step, or their films would differ.
    films = [output / "videos" / label / "gymnasium" / "000000.mp4" for label in ("openvla-oft", "far")]
    assert films[0].read_bytes() == films[1].read_bytes()
