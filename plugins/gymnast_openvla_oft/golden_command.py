"""The command `gymnast golden`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
CHECKPOINT = click.argument("checkpoint", type=click.Path(path_type=Path), metavar="POLICY_CHECKPOINT")
DEVICE = click.option("--device", default="cpu", show_default=True, help="Where to act, e.g. cuda.")


@click.group()
def golden() -> None:
    """Record what a policy does, and verify later that it still does it.

    The files golden_actions.safetensors and golden_actions.json lie beside the checkpoint. Loading it verifies them,
    too: policy.args.golden=warn|error|off.
    """


@golden.command("record")
@CHECKPOINT
@OVERRIDES
@DEVICE
@click.option("--policy", "name", default="openvla-oft", show_default=True, help="Policy plugin that runs it.")
@click.option("--tasks", "dataset", metavar="DATASET", help="Act on the first tasks of this dataset plugin.")
@click.option("--count", default=4, show_default=True, help="Number of tasks.")
@click.option("--image-size", type=int, metavar="PIXELS", help="Side of made-up images; default: the policy's.")
def record_command(
    checkpoint: Path,
    overrides: tuple[str, ...],
    device: str,
    name: str,
    dataset: str | None,
    count: int,
    image_size: int | None,
) -> None:
    """Store actions, log-probabilities and versions for a handful of observations.

    KEY=VALUE are arguments of the policy, e.g. unnorm_key=bridge_dataset images=2 dtype=bfloat16.
    """
    from gymnast_core.plugins.compose import registries
    from gymnast_core.plugins.places import arguments_of
    from gymnast_openvla_oft import golden as files
    from gymnast_openvla_oft.base import CheckpointPolicy

    args = arguments_of(registries().policies, name, overrides)
    policy = _build(name, checkpoint, args, device)
    needs = policy.needed
    if dataset is not None:
        tasks = registries().datasets.build(dataset, key="tasks").tasks()
        observation = files.task_observation([tasks[i] for i in range(min(count, len(tasks)))], needs)
    else:
        size = image_size or (policy.processor.images.size if isinstance(policy, CheckpointPolicy) else 224)
        observation = files.made_up_observation(size, needs)
    recorded = files.record(policy, observation, name, args)
    files.write(checkpoint, recorded)
    click.echo(f"{checkpoint / files.FACTS_FILE}: {files.describe(recorded)}")


@golden.command("verify")
@CHECKPOINT
@OVERRIDES
@DEVICE
def verify_command(checkpoint: Path, overrides: tuple[str, ...], device: str) -> None:
    """Act again on the recorded observations; exit with 2 if the actions are not the recorded ones.

    The policy is built with the recorded arguments; KEY=VALUE change them.
    """
    from gymnast_core.errors import CheckpointError
    from gymnast_core.plugins.places import arguments_of
    from gymnast_core.plugins.registry import registries
    from gymnast_openvla_oft import golden as files

    recorded = files.read(checkpoint)
    if recorded is None:
        raise CheckpointError(
            f"{checkpoint} has no golden actions. Record them where the policy works: "
            f"gymnast golden record {checkpoint}"
        )
    changes = arguments_of(registries().policies, recorded.policy, overrides)
    policy = _build(recorded.policy, checkpoint, {**recorded.args, **changes}, device)
    comparison = files.compare(policy, recorded)
    files.report(comparison, "error")
    click.echo(f"The golden actions are reproduced: {comparison}")


def _build(name: str, checkpoint: Path, args: dict[str, Any], device: str) -> Any:
    from dataclasses import fields

    from gymnast_core.devices import find_device
    from gymnast_core.errors import CheckpointError
    from gymnast_core.plugins.compose import registries

    if not checkpoint.is_dir():
        raise CheckpointError(f"There is no checkpoint directory {checkpoint}.")
    policies = registries().policies
    known = {item.name for item in fields(policies.load(name).Config)}
    own = {"checkpoint": str(checkpoint)} | ({"golden": "off"} if "golden" in known else {})
    place = find_device(device, "--device")
    return policies.build(name, {**args, **own}, key="policy").eval().to(place)
