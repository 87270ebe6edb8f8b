"""The command `gymnast serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gymnast_core.interfaces import Policy

TOKEN_VARIABLE = "GYMNAST_SERVE_TOKEN"
MAX_TEMPERATURE = 100.0


def _finite(context: click.Context, option: click.Parameter, value: float) -> float:
    """Ranges let NaN pass."""
    if value != value:
        raise click.BadParameter("NaN is no number.", context, option)
    return value


@click.command()
@click.argument("target", metavar="POLICY|FOLDER")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; others need a token.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda.")
@click.option(
    "--temperature",
    type=click.FloatRange(0, MAX_TEMPERATURE),
    callback=_finite,
    default=0.0,
    show_default=True,
    help="0 is greedy.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of the sampling.")
@click.option(
    "--image-key", "image_keys", multiple=True, metavar="KEY", help="Of a camera's image; repeat for each camera."
)
@click.option("--state-key", metavar="KEY", help="Of the proprioceptive state, if the policy reads one.")
@click.option(
    "--on-extra", type=click.Choice(["refuse", "warn"]), default="refuse", show_default=True,
    help="Requests with images or states that the policy does not take: refuse them, or leave these out, say so in the "
    "answer and log it.",
)  # fmt: skip
@click.option("--queue", type=click.IntRange(0), default=16, show_default=True, help="Requests that may wait.")
@click.option("--connections", type=click.IntRange(1), default=32, show_default=True, help="Websockets at once.")
@click.option("--max-megabytes", type=click.IntRange(1, 1024), default=8, show_default=True, help="Of a request.")
@click.option(
    "--read-seconds",
    type=click.FloatRange(0.01, 3600),
    callback=_finite,
    default=10.0,
    show_default=True,
    help="For its body.",
)
def serve(target: str, arguments: tuple[str, ...], host: str, port: int, device: str, **options: Any) -> None:
    """Serve a policy to robots and other programs, over OpenVLA's and openpi's protocols on one port.

    POLICY is the name of an installed policy, KEY=VALUE its args; FOLDER is a run of `gymnast train` or `gymnast fit`,
    or the checkpoint in it.

    \b
    POST /act    JSON {"image": json-numpy array, "instruction": text} -> json-numpy array, (A,) or a chunk (L, A)
    ws://.../    openpi's websocket: msgpack {"observation/image": array, "prompt": text} -> {"actions": (L, A)}
    /healthz     200 while the server runs

    It decides one observation at a time; further ones wait, and beyond --queue they are answered 503 with Retry-After.
    A request that lacks an image or state that the policy needs is refused (400), and so is one with more than it
    takes, unless --on-extra warn. Actions are in the robot's own units. It listens on this machine only, unless --host
    says otherwise; then clients must send the token of the environment variable GYMNAST_SERVE_TOKEN (Authorization:
    Bearer TOKEN, or Api-Key TOKEN), and since nothing is encrypted the network should be trusted, or an SSH tunnel or
    TLS proxy be in front.
    Ctrl-C answers what is being decided, then stops.

    \b
    gymnast serve openvla-oft checkpoint=FOLDER
    gymnast serve runs/MY-RUN --port 9000
    gymnast evaluate evaluate-tabletop policies.far.name=remote 'policies.far.args={chunk_length: 4, action_dim: 2}'
    """
    token = _token(host)
    policy, name, chosen = _policy(target, arguments, device)
    from gymnast_remote.app import Gateway, Limits
    from gymnast_remote.server import serve_until_stopped
    from gymnast_remote.service import PolicyService, ServiceConfig

    config = ServiceConfig(
        name,
        options["temperature"],
        options["seed"],
        options["image_keys"],
        options["state_key"],
        options["queue"],
        options["on_extra"],
    )
    limits = Limits(options["max_megabytes"] * 2**20, options["read_seconds"], connections=options["connections"])
    service = PolicyService(policy, config, chosen)
    try:
        serve_until_stopped(Gateway(service, limits, token), host, port, lambda at: _announce(name, at, token))
    finally:
        service.close()


def _token(host: str) -> str | None:
    """Raises `ConfigError` if that address needs a token and has none, or a weak one."""
    import os

    from gymnast_core.errors import ConfigError

    from gymnast_remote.policy import is_loopback

    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    example = f"export {TOKEN_VARIABLE}=$(openssl rand -hex 16)"
    if not token and not is_loopback(host):
        raise ConfigError(f"--host {host} is open to other machines: clients must have a token. Set one: {example}")
    if token and not (len(token) >= 16 and token.isascii() and token.isprintable()):
        raise ConfigError(f"{TOKEN_VARIABLE} must have 16 plain characters or more, e.g. {example}")
    return token or None


def _policy(target: str, arguments: tuple[str, ...], device: str) -> tuple[Policy, str, Any]:
    from gymnast_core.devices import find_device
    from gymnast_core.plugins.compose import registries

    from gymnast_remote.target import find_target

    part, chosen = find_target(target, arguments), find_device(device, "--device")
    return registries().policies.build(part.name, part.args, key="policy"), part.name, chosen


def _announce(name: str, address: str, token: str | None) -> None:
    guard = f"with the token of {TOKEN_VARIABLE}" if token else "without a token"
    click.echo(f"Serving {name} at http://{address}/act and ws://{address}/ {guard}. Ctrl-C stops.")
