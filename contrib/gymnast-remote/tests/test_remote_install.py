"""Installed by pip on top of gymnast, from the command line, with the tabletop's own policy."""

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import gymnast_tabletop
import pytest
import requests
from click.testing import CliRunner
from gymnast_core.cli import cli
from gymnast_core.config import ComponentConfig
from gymnast_core.errors import GymnastError
from gymnast_core.plugins.compose import registries

from gymnast_remote.command import serve
from gymnast_remote.policy import RemotePolicy
from gymnast_remote.target import find_target

PACKAGE = Path(__file__).parents[1]
CHECKPOINT = Path(gymnast_tabletop.__file__).parent / "checkpoints" / "policy"
TASKS = ["tasks.name=tabletop", "tasks.args={split: reporting, first: 100000, count: 6, image_size: 32}"]
TOKEN = "0123456789abcdef0123"


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    # Built from a copy: setuptools leaves its build folder beside the sources.
    ignored = shutil.ignore_patterns("tests", "build", "*.egg-info", "__pycache__")
    source = shutil.copytree(PACKAGE, tmp_path_factory.mktemp("source") / "package", ignore=ignored)
    target = tmp_path_factory.mktemp("site-packages")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def start(installed: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    variables = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "gymnast_core.cli", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=variables, cwd=installed, stdout=pipe, stderr=pipe, text=True)


def gymnast(installed: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    process = start(installed, *arguments, **environment)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@contextmanager
def gymnast_serve(installed: Path, *arguments: str, **environment: str):
    """The process and its HOST:PORT."""
    process = start(installed, "serve", *arguments, "--port", "0", "--device", "cpu", **environment)
    try:
        assert process.stdout is not None and process.stderr is not None
        ready, _, _ = select.select([process.stdout], [], [], 90)
        line = process.stdout.readline() if ready else ""
        found = re.search(r"http://(\S+)/act and ws://\1/ ", line)
        assert found, process.stderr.read() if process.poll() is not None else line
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def test_it_is_listed_and_its_command_explains_itself(installed):
    _, out, _ = gymnast(installed, "plugins")
    lines = [line.split("\t") for line in out.splitlines()]
    rows = [[*cells[:4], cells[-1]] for cells in lines]  # without the sentence about it
    assert ["policy", "remote", "gymnast-remote 0.1.0", "gymnast_remote.policy:RemotePolicy", "ok"] in rows
    status, out, _ = gymnast(installed, "serve", "--help")
    assert status == 0 and "GYMNAST_SERVE_TOKEN" in out and "--read-seconds" in out
    assert "serve " in gymnast(installed, "--help")[1]


def test_listing_and_help_import_nothing_heavy(installed):
    code = "import sys, gymnast_remote.command; print(*(m for m in ('torch', 'aiohttp', 'numpy') if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(installed)}
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_a_served_run_evaluates_like_its_policy_and_ctrl_c_ends_it(installed, tmp_path):
    run, output = tmp_path / "run", tmp_path / "out"
    shutil.copytree(CHECKPOINT, run / "policy")
    (run / "config.yaml").write_text("kind: train\npolicy: {name: openvla-oft, args: {checkpoint: /gone}}\n")
    with gymnast_serve(installed, str(run), GYMNAST_SERVE_TOKEN=TOKEN) as (server, address):
        assert requests.post(f"http://{address}/act", data="{}").status_code == 401
        shape = "action_dim: 2, chunk_length: 4"
        near = ["policies.near.name=openvla-oft", f"policies.near.args.checkpoint={CHECKPOINT}"]
        rest = ["policies.rest.name=remote", f"policies.rest.args={{{shape}, url: 'http://{address}'}}"]
        openpi = f"policies.openpi.args={{{shape}, url: 'ws://{address}', protocol: openpi}}"
        far = [*rest, "policies.openpi.name=remote", openpi]
        world = ["world_model=gymnasium", "reward_model=environment", "horizon=16", "videos=0", "device=cpu"]
        arguments = ["evaluate", *near, *far, *world, *TASKS, f"output={output}"]
        status, out, err = gymnast(installed, *arguments, GYMNAST_REMOTE_TOKEN=TOKEN)
        assert status == 0, err
        assert "NaN" not in out and "Unclosed" not in err and "Traceback" not in err
        server.send_signal(signal.SIGINT)
        assert server.communicate(timeout=20)[1] == "" and server.returncode == 0
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://{address}/healthz")
    success: dict[str, dict[str, float]] = {}
    for line in (output / "results.jsonl").read_text().splitlines():
        row = json.loads(line)
        success.setdefault(row["policy"], {})[row["task"]] = row["value"]
    assert len(success["near"]) == 6 and sum(success["near"].values()) >= 1
    assert success["rest"] == success["near"] and success["openpi"] == success["near"]


@pytest.fixture
def remote_is_registered():
    registries().policies.register("remote", RemotePolicy)


def failure(command, *arguments: str) -> str:
    """The error that the command ends with, in this process."""
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, GymnastError), result.exception
    return str(result.exception)


def test_user_mistakes_end_with_one_error(tmp_path, monkeypatch):
    for name in ("openvla-oft", "empty", "unfinished"):
        (tmp_path / name).mkdir()
    (tmp_path / "unfinished" / "config.yaml").write_text("policy: openvla-oft")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GYMNAST_SERVE_TOKEN", raising=False)
    known = ("openvla-oft", f"checkpoint={CHECKPOINT}", "--device", "cpu")
    assert "clients must have a token" in failure(serve, *known, "--host", "0.0.0.0")
    assert "Did you mean 'openvla-oft'" in failure(serve, "openvla-off")
    assert "policy.args.chekpoint" in failure(serve, "openvla-oft", "chekpoint=x")
    assert "There is no folder gone/policy" in failure(serve, "gone/policy")
    assert "does not say which policy it holds" in failure(serve, "empty")
    assert "has not ended yet" in failure(serve, "unfinished")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"Port {port} of 127.0.0.1 cannot be used" in failure(serve, *known, "--port", port)
    monkeypatch.setenv("GYMNAST_SERVE_TOKEN", "short")
    assert "16 plain characters" in failure(serve, *known)


def test_a_policy_is_meant_by_its_name_and_a_checkpoint_by_its_run(tmp_path, monkeypatch):
    (tmp_path / "openvla").mkdir()
    run = tmp_path / "run"
    (run / "checkpoint").mkdir(parents=True)
    (run / "config.yaml").write_text("kind: fit\npolicy: {name: openvla-oft, args: {unnorm_key: a, dtype: float32}}\n")
    monkeypatch.chdir(tmp_path)
    assert find_target("openvla", ["dtype=bfloat16"]) == ComponentConfig("openvla", {"dtype": "bfloat16"})
    assert find_target("openvla", ["policy.args.dtype=bfloat16"]).args == {"dtype": "bfloat16"}, "as errors advise it"
    wanted = {"unnorm_key": "b", "dtype": "float32", "checkpoint": str(run / "checkpoint")}
    for target in ("run", "run/checkpoint", str(run)):
        for key in ("unnorm_key", "policy.args.unnorm_key"):
            assert find_target(target, [f"{key}=b"]) == ComponentConfig("openvla-oft", wanted)


def test_an_evaluation_without_its_server_and_a_training_say_why(tmp_path, remote_is_registered):
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    common = ["policy=remote", f"policy.args={{action_dim: 2, chunk_length: 4, retries: 0, url: '{url}'}}"]
    world = ["world_model=gymnasium", "reward_model=environment", *TASKS]
    evaluation = ["evaluate", *common, *world, "horizon=16", "device=cpu", f"output={tmp_path / 'a'}"]
    assert "Is the server running there" in failure(cli, *evaluation)
    learning = ["optimizer=grpo", "loop.horizon=16", "trainer={accelerator: cpu}", f"output={tmp_path / 'b'}"]
    assert "A remote policy cannot be trained" in failure(cli, "train", *common, *world, *learning)
