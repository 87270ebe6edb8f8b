"""What surrounds a training: how its processes end together, what SIGTERM does, which trainer there is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from launching import forkserver

from gymnast_core.errors import ConfigError, GymnastError
from gymnast_core.signals import TERMINATED, Terminated, listen, terminating
from gymnast_core.training import together as ending
from gymnast_core.training import trainer as building
from gymnast_core.training.launcher import Watch
from gymnast_core.training.together import ending_together, follow, led, together
from gymnast_core.training.trainer import ShardedStrategy, WholeWeightsStrategy, build_trainer, precision_of


def one_process() -> lightning.Trainer:
    return lightning.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)


def test_errors_in_one_process_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="out of paper"), together(one_process(), ""):
        raise RuntimeError("out of paper")


class Child:
    """A process that another one started."""

    def __init__(self, returncode: int | None, after: int = 0) -> None:
        self.pid, self.returncode, self._code, self._after = 4711, None, returncode, after
        self.killed = False

    def poll(self) -> int | None:
        self._after -= 1
        if self._after < 0:
            self.returncode = self._code
        return self.returncode

    def kill(self) -> None:
        self.killed = True


def leading(*children: Child) -> Any:
    strategy = SimpleNamespace(launcher=SimpleNamespace(procs=list(children)))
    return SimpleNamespace(strategy=strategy, is_global_zero=True)


def deaf() -> None:
    """A leader that is told, and does not hear."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Watch([Child(2)], patience=0.1).start()  # type: ignore[list-item]
    time.sleep(60)


def going_on() -> None:
    """A leader that would go on, were it not told."""
    child = Child(2)
    trainer = leading(child)
    trainer.strategy.launcher.watch = watch = Watch([child], patience=1.0)  # type: ignore[list-item]
    with terminating(), ending_together(trainer, "do less"):
        watch.start()
        time.sleep(60)


def slow() -> None:
    """A leader that heard, and ends slowly."""
    watch = Watch([Child(2)], patience=1.0)  # type: ignore[list-item]
    with terminating():
        try:
            watch.start()
            time.sleep(60)
        except Terminated:
            watch.join(30)
            raise SystemExit(7 if watch.spoke and not watch.is_alive() else 8) from None


def exit_code(of: Callable[[], None]) -> int | None:
    """That of a process of its own: this one is not to be ended by mistake."""
    process = forkserver().Process(target=of)
    process.start()
    process.join(120)
    return process.exitcode


class TestTheWatch:
    @pytest.mark.parametrize(("leader", "code"), [(going_on, 2), (slow, 7), (deaf, -signal.SIGKILL)])
    def test_a_leader_is_told_and_killed_only_if_it_does_not_hear(self, leader: Callable[[], None], code: int) -> None:
        assert exit_code(leader) == code

    def test_one_that_is_ending_is_left_alone(self) -> None:
        child = Child(2)
        trainer = leading(child)
        trainer.strategy.launcher.watch = watch = Watch([child], patience=1.0)  # type: ignore[list-item]
        with pytest.raises(ValueError, match="mine"), ending_together(trainer, "do less"):
            watch.start()
            raise ValueError("mine")
        watch.join(10)
        assert not watch.is_alive()
        assert not watch.spoke

    @pytest.mark.parametrize("codes", [(0, 0), (0,), ()])
    def test_nobody_is_told_of_processes_that_ended_well(self, codes: tuple[int, ...]) -> None:
        watch = Watch([Child(code) for code in codes], patience=0.0)  # type: ignore[misc]
        watch.start()
        watch.join(10)
        assert not watch.is_alive()
        assert not watch.spoke


GONE = RuntimeError("[gloo] Connection closed by peer")


class TestTheLeader:
    def test_its_own_error_ends_the_others_and_is_the_message(self) -> None:
        children = [Child(None), Child(None)]
        with pytest.raises(ValueError, match="mine"), ending_together(leading(*children), "do less"):
            raise ValueError("mine")
        assert all(child.killed for child in children)

    def test_an_error_that_another_process_told_is_not_told_again(self) -> None:
        children = [Child(None), Child(2, after=3)]
        with pytest.raises(SystemExit) as stop, ending_together(leading(*children), "do less"):
            raise GONE
        assert stop.value.code == 2
        assert all(child.killed for child in children)

    def test_a_process_that_was_killed_is_named_with_advice(self) -> None:
        child = Child(-signal.SIGKILL)
        with (
            pytest.raises(GymnastError, match=r"Training process 4711 was killed \(SIGKILL\).*memory ran out: do less"),
            ending_together(leading(child), "do less"),
        ):
            raise GONE

    def test_a_broken_connection_without_an_end_stays_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ending, "_ENDING_SECONDS", 0.1)
        child = Child(None)
        with pytest.raises(RuntimeError, match="gloo"), ending_together(leading(child), ""):
            raise GONE
        assert child.killed

    def test_distributed_errors_count_as_broken_connections(self) -> None:
        with pytest.raises(SystemExit), ending_together(leading(Child(3)), ""):
            raise torch.distributed.DistError("peer")


class TestAFollower:
    def test_a_broken_connection_means_that_the_leader_said_why(self) -> None:
        with pytest.raises(SystemExit) as stop, led():
            raise GONE
        assert stop.value.code == 1
        with pytest.raises(RuntimeError, match="out of paper"), led():
            raise RuntimeError("out of paper")

    @pytest.mark.parametrize(
        ("environment", "dies"),
        [
            ({"LOCAL_RANK": "1"}, True),
            ({}, False),
            ({"LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "x"}, False),
            ({"LOCAL_RANK": "1", "SLURM_PROCID": "1"}, False),
        ],
    )
    def test_it_leaves_signals_to_the_leader_and_dies_with_it(
        self, environment: dict[str, str], dies: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("LOCAL_RANK", "TORCHELASTIC_RUN_ID", "SLURM_PROCID"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        ignored: dict[int, Any] = {}
        asked: list[tuple[int, int]] = []
        library = SimpleNamespace(prctl=lambda *arguments: asked.append(arguments))
        monkeypatch.setattr(signal, "signal", lambda number, handler: ignored.update({number: handler}))
        monkeypatch.setattr(ending.ctypes, "CDLL", lambda name: library)
        follow()
        assert ignored == {signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: signal.SIG_IGN}
        assert asked == ([(1, signal.SIGKILL)] if dies else [])

    def test_together_makes_a_follower_follow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        followed: list[bool] = []
        monkeypatch.setattr(ending, "follow", lambda: followed.append(True))
        trainer: Any = SimpleNamespace(is_global_zero=False)
        with pytest.raises(SystemExit), together(trainer, ""):
            raise GONE
        assert followed == [True]


class TestSigterm:
    @pytest.fixture(autouse=True)
    def handler(self) -> Iterator[None]:
        before = signal.getsignal(signal.SIGTERM)
        yield
        signal.signal(signal.SIGTERM, before)

    def test_inside_it_raises_once_and_afterwards_is_as_before(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(Terminated), terminating():
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait([], 1)
        assert signal.getsignal(signal.SIGTERM) is before
        listen()
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait([], 1)
        assert not issubclass(Terminated, Exception)
        assert TERMINATED == 143

    def test_a_second_one_ends_at_once_whatever_hangs(self) -> None:
        program = (
            "import time\n"
            "from gymnast_core.signals import Terminated, listen\n"
            "listen()\n"
            "try:\n"
            "    print('ready', flush=True)\n"
            "    time.sleep(60)\n"
            "except Terminated:\n"
            "    print('closing', flush=True)\n"
            "    time.sleep(60)\n"
        )
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for word in ("ready", "closing"):
            assert process.stdout.readline().strip() == word
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
        process.stdout.close()

    def test_a_follower_ignores_it(self) -> None:
        listen(leads=False)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN

    def test_in_another_thread_nothing_changes(self) -> None:
        before, seen = signal.getsignal(signal.SIGTERM), []

        def work() -> None:
            listen()
            with terminating():
                seen.append(signal.getsignal(signal.SIGTERM))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen == [before]


class TestTheTrainer:
    def test_it_has_the_users_options_and_the_loops_own(self) -> None:
        trainer = build_trainer({"accelerator": "cpu", "max_time": "00:01:00:00"})
        assert (trainer.num_devices, trainer.max_epochs, trainer.loggers) == (1, 1, [])
        assert trainer.checkpoint_callback is None and trainer.progress_bar_callback is None
        assert not isinstance(trainer.strategy, WholeWeightsStrategy)

    @pytest.mark.parametrize(
        "options", [{"devices": 2}, {"devices": "2", "strategy": "ddp"}, {"strategy": "ddp"}, {"num_nodes": 2}]
    )
    def test_several_processes_hold_whole_weights(self, options: dict[str, Any]) -> None:
        trainer = build_trainer({"accelerator": "cpu", **options})
        assert isinstance(trainer.strategy, WholeWeightsStrategy)

    @pytest.mark.parametrize("options", [{}, {"devices": "1"}, {"num_nodes": "1"}, {"devices": 1, "num_nodes": 1}])
    def test_one_process_needs_nothing_of_that(self, options: dict[str, Any]) -> None:
        trainer = build_trainer(options)
        assert (trainer.world_size, type(trainer.strategy).__name__) == (1, "SingleDeviceStrategy")

    def test_shared_out_weights_are_in_all_processes_of_all_nodes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[tuple[Any, Any]] = []
        monkeypatch.setattr(
            building.ModelParallelStrategy,
            "setup_environment",
            lambda self: seen.append((self._data_parallel_size, self._tensor_parallel_size)),
        )
        strategy = ShardedStrategy()
        strategy.parallel_devices = [torch.device("cpu")] * 3
        strategy.num_nodes = 2
        strategy.setup_environment()
        assert seen == [(6, 1)]

    def test_weights_are_shared_out_where_the_loop_can_gather_them(self) -> None:
        options = {"accelerator": "cpu", "devices": 2, "strategy": "fsdp2"}
        strategy = build_trainer(options, shards=True).strategy
        assert isinstance(strategy, ShardedStrategy)
        with pytest.raises(ConfigError, match=r"strategy=fsdp2: the weights are whole .*Choose auto, ddp\.$"):
            build_trainer(options)
        with pytest.raises(ConfigError, match="Choose auto, ddp; fsdp2 shares them out"):
            build_trainer({**options, "strategy": "fsdp"}, shards=True)

    def test_every_process_begins_with_the_leaders_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sent: list[tuple[torch.Size, int]] = []
        monkeypatch.setattr(building.distributed, "broadcast", lambda tensor, src: sent.append((tensor.shape, src)))
        strategy = WholeWeightsStrategy()
        strategy._lightning_module = strategy._model = torch.nn.Linear(2, 3)  # type: ignore[assignment]
        strategy.configure_ddp()
        assert sent == [(torch.Size([3, 2]), 0), (torch.Size([3]), 0)]
        assert strategy.model is not None and strategy.pre_backward(torch.zeros(())) is None

    @pytest.mark.parametrize(
        ("given", "meant"),
        [({}, "32-true"), ({"precision": 32}, "32-true"), ({"precision": "bf16-mixed"}, "bf16-mixed")],
    )
    def test_precision(self, given: dict[str, Any], meant: str) -> None:
        assert precision_of(given) == meant

    @pytest.mark.parametrize("wrong", ["16-mixed", "bf16-true", 3, None])
    def test_other_precisions_are_refused(self, wrong: Any) -> None:
        with pytest.raises(ConfigError, match=f"precision={wrong} would scale .*use bf16-mixed or 32-true"):
            precision_of({"precision": wrong})

    @pytest.mark.parametrize("key", sorted(building._OURS))
    def test_what_the_loop_sets_itself_is_refused_with_the_key_to_use(self, key: str) -> None:
        with pytest.raises(ConfigError, match=f"trainer.{key} cannot be set: {building._OURS[key][:20]}"):
            build_trainer({key: 1})

    def test_what_lightning_refuses_is_our_error(self) -> None:
        with pytest.raises(ConfigError, match=r"trainer: .*abacus"):
            build_trainer({"accelerator": "abacus"})
        with pytest.raises(ConfigError, match=r"nonsense.*Allowed are the arguments of lightning.Trainer"):
            build_trainer({"nonsense": 1})
