from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import killing
import pytest
import toy
from launching import forkserver

from gymnast_core import cli
from gymnast_core.config import load_config
from gymnast_core.plugins.compose import registries
from gymnast_fit.config import FitConfig


@pytest.fixture(autouse=True)
def _toys() -> Iterator[None]:
    toy.register()
    yield
    registries.cache_clear()


@pytest.fixture(scope="session")
def ranks() -> Callable[..., list[int | None]]:
    """Runs `gymnast ARGUMENTS` in so many processes as torchrun starts them; their exit codes."""
    server = forkserver()

    def start(arguments: list[str], moment: str | None = None, count: int = 2) -> list[int | None]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"GROUP_RANK": "0", "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
        places = [{"RANK": str(i), "LOCAL_RANK": str(i), **shared} if count > 1 else {} for i in range(count)]
        processes = [
            server.Process(target=killing.run, args=(arguments, None if index else moment, place))
            for index, place in enumerate(places)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(150)
        codes = [process.exitcode for process in processes]
        for process in processes:
            process.kill()  # what hangs must not outlive its test
        return codes

    return start


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Path]:
    """Fit the toy in this process; keywords are the `fit` section's, `config` the rest. Returns the run folder."""
    from gymnast_fit.fit import fit as run

    made = 0

    def call(*overrides: str, resume: Path | None = None, **loop: Any) -> Path:
        nonlocal made
        made += 1
        folder = resume or tmp_path / f"run-{made}"
        settings = {"steps": 6, "batch_size": 8, "learning_rate": 0.01, "warmup_steps": 0, "decay": "constant"} | loop
        pairs = [f"fit.{key}={'null' if value is None else value}" for key, value in settings.items()]
        base = ["episodes=toy-episodes", "reward_model=toy", "trainer={accelerator: cpu}", f"output={folder}"]
        run(load_config(FitConfig, None, [*base, *pairs, *overrides]), resume=resume)
        return folder

    return call


@pytest.fixture
def fit_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """The one message with which `gymnast fit ARGUMENTS` ends; an argument replaces an earlier one of its key."""

    def call(*arguments: str) -> str:
        base = ["episodes=toy-episodes", "reward_model=toy", "trainer={accelerator: cpu}", f"output={tmp_path / 'run'}"]
        mine = {argument.partition("=")[0] for argument in arguments}
        kept = [argument for argument in base if argument.partition("=")[0] not in mine]
        monkeypatch.setattr(sys, "argv", ["gymnast", "fit", *kept, *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        written = capsys.readouterr().err
        assert stop.value.code == 2, written
        assert written.count("Error: ") == 1 and "Traceback" not in written
        return written

    return call
