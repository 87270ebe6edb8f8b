"""Joining a Ray cluster, or starting a Ray of our own on this machine, and leaving it again."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
from collections.abc import Mapping
from typing import Any

from gymnast_core.errors import ConfigError, PluginError
from gymnast_core.network.address import refuse_secrets
from gymnast_ray.config import RayConfig

ADDRESS = "RAY_ADDRESS"


def join(config: RayConfig, processes: int = 1) -> bool:
    """Connect this process to Ray. Whether we did, and so have to leave.

    Raises `PluginError` if Ray is not installed, `ConfigError` if there is none at the address, or if this machine
    alone has less than what is asked for.
    """
    try:
        import ray
    except ImportError as error:
        raise PluginError(
            "engine=ray needs Ray, which cannot be imported. Type `pip install 'gymnast[ray]'`, or set engine=local."
        ) from error
    if ray.is_initialized():
        return False
    address = config.address or os.environ.get(ADDRESS)
    if address is None and processes > 1:
        raise ConfigError(
            f"engine=ray in {processes} processes needs one cluster for all of them: start one (`ray start --head`) "
            "and set engine.args.address=auto."
        )
    connect(address, "engine.args.address", {} if address else _here(config))
    return True


def connect(address: str | None, key: str, options: Mapping[str, Any]) -> None:
    """Join the Ray at an address; None starts one for us alone, with these options of `ray.init`.

    `key` of the config is what says where. Raises `ConfigError` if there is none, or none can be started.
    """
    import ray

    here: dict[str, Any] = {}
    if address is None:
        here = {"include_dashboard": False, **options}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    handler = signal.getsignal(signal.SIGTERM)
    if address is not None:
        refuse_secrets(address, f"{key}, or {ADDRESS} in its place,", "Ray takes HOST:PORT.")
    try:
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **here)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address is None:
            raise ConfigError(f"Ray could not be started on this machine: {error}") from error
        raise ConfigError(f"No Ray at {address}: {error} Start one (`ray start --head`) or set {key}.") from error
    finally:
        # Ray puts its own handler in the place of ours, and exits where we close what is open.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def leave() -> None:
    """Disconnect; a Ray that we started ends."""
    import ray

    ray.shutdown()


def asked(config: RayConfig) -> tuple[float, float, dict[str, float]]:
    """CPUs, GPUs and further resources of all workers together."""
    judges = config.judges if config.judging == "apart" else 0
    names = {*config.resources, *(config.judge_resources if judges else ())}
    return (
        config.workers * config.cpus + judges * config.judge_cpus,
        config.workers * config.gpus + judges * config.judge_gpus,
        {
            name: config.workers * config.resources.get(name, 0.0) + judges * config.judge_resources.get(name, 0.0)
            for name in names
        },
    )


def _here(config: RayConfig) -> dict[str, Any]:
    """Options of a Ray on this machine alone.

    It has as many CPUs as are asked for, and all further resources: sharing those is slow, not wrong. GPUs are those
    that there are.
    """
    import torch

    cpus, gpus, resources = asked(config)
    count = torch.cuda.device_count()
    if gpus > count:
        raise ConfigError(
            f"The workers ask for {gpus:g} GPUs, and this machine has {count}. Set engine.args.gpus lower (a fraction "
            "shares one), or engine.args.address to a cluster that has more."
        )
    options: dict[str, Any] = {
        "num_cpus": max(math.ceil(cpus), os.cpu_count() or 1),
        "num_gpus": count,
        "resources": resources,
    }
    if config.object_store_gib is not None:
        options["object_store_memory"] = int(config.object_store_gib * 2**30)
    return options
