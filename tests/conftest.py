"""Settings of the whole suite."""

import gc
import signal

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail: neither a slow example nor slow data generation says anything about a law.
settings.register_profile("gymnast", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gymnast")

FIRST = (
    "test_ray_left_behind", "test_peers", "test_paper_benchmark", "test_processes", "test_fuzz", "test_run_folder",
    "test_fit_masters", "test_tutorial", "test_simulator_page", "test_bench_cells", "test_oft_plan",
    "test_resume", "test_fit_sharded", "test_commands_run", "test_core_cli", "test_fit_processes", "test_shared_out",
    "test_evaluate_resume", "test_start_up", "test_swaps", "test_ray_engine", "test_shared_evaluation",
)  # fmt: skip
"""Files that take longest, most of them because they start whole trainings. A file is one process's work: begun last,
one of these would keep a core while the other has nothing left to do."""

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # So a shell starts what it puts into the background; what the tests start, and stop by Ctrl-C, inherits it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

gc.disable()  # until everything is imported and collected: little of it is garbage


def pytest_collection_finish() -> None:
    """Thousands of tests and modules stay; the collector need not look at them again and again."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
