"""The `gymnast` command. Everything heavy is imported inside the command that needs it."""

import json
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from gymnast_core import __version__
from gymnast_core.errors import ConfigError, GymnastError, PluginError, unknown_name
from gymnast_core.plugins import discovery
from gymnast_core.plugins.elsewhere import where_from
from gymnast_core.plugins.importing import undisturbed
from gymnast_core.signals import TERMINATED, Terminated

SOURCE_AND_OVERRIDES = click.argument("arguments", nargs=-1, metavar="[PRESET|FILE.yaml] [KEY=VALUE]...")
RESUME = click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Folder of a run to continue.")
_GROUP = "gymnast.commands"


class _BrokenCommand(click.Command):
    """Stands for a command that cannot be loaded; says so when it is used."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        raise PluginError(f"The command {self.name!r} is broken {self.short_help}.")


class _Commands(click.Group):
    """Our own commands and those of plugins (entry points of `gymnast.commands`), imported when used."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted({*super().list_commands(context), *discovery.sources(_GROUP)})

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = arguments[0]
        elsewhere = where_from(_GROUP, name) if self.get_command(context, name) is None else ""
        if elsewhere:
            raise PluginError(unknown_name("command", name, self.list_commands(context), elsewhere))
        return super().resolve_command(context, arguments)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        own = super().get_command(context, name)
        found = discovery.sources(_GROUP).get(name)
        if own is not None or not found:
            return own
        try:
            if len(found) == 1 and isinstance(command := discovery.load(found[0]), click.Command):
                return command
            fault = "several plugins bring it" if len(found) > 1 else "it is not a click command"
            reason = f"{fault}: " + " and ".join(map(str, found))
        # One broken command must not take the others, or --help, with it.
        except (Exception, SystemExit) as error:
            reason = f"{found[0]} cannot be imported: {type(error).__name__}: {error}"
        return _BrokenCommand(name, short_help=f"(broken: {reason})")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gymnast")
@click.option("-v", "--verbose", is_flag=True, help="Log debugging messages.")
def cli(verbose: bool) -> None:
    """Train vision-language-action policies by reinforcement learning inside learned world models."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("gymnast_core").setLevel(logging.DEBUG if verbose else logging.INFO)


@cli.command()
@SOURCE_AND_OVERRIDES
@RESUME
def train(arguments: tuple[str, ...], resume: Path | None) -> None:
    """Reinforcement learning of a policy inside a world model."""
    from gymnast_core.config import RunConfig

    config = config_from(RunConfig, arguments, resume)
    with undisturbed():
        from gymnast_core.training import run

    summary = run.train(config, resume=resume)
    if not summary:
        return  # the process that leads the others has the word
    print_summary(summary)
    click.echo(f"Run folder: {summary['output']} (see report.html there)")


def main() -> None:
    """Entry point: user errors end with one message and exit code 2, a plugin that fails with one that names it and 1,
    Ctrl-C with 130, SIGTERM with 143."""
    # Idle OpenMP threads must sleep rather than spin; OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        cli(standalone_mode=False)
    except GymnastError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except OSError as error:
        reason = _refusal_of_the_disk(error)
        if reason is None:
            _end_with_a_plugin(error)
            raise
        click.echo(f"Error: {reason}", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise  # Lightning turns Ctrl-C into an exit of its own
        click.echo("Interrupted. A run goes on from its last checkpoint with --resume RUN.", err=True)
        sys.exit(130)
    except Terminated:
        click.echo("Ended by SIGTERM. A run goes on from its last checkpoint with --resume RUN.", err=True)
        sys.exit(TERMINATED)
    except Exception as error:
        _end_with_a_plugin(error)
        raise


def _end_with_a_plugin(error: Exception) -> None:
    """If a plugin raised it, end with one sentence that names it, below the traceback: a run of hours is not repeated
    to see one."""
    from gymnast_core.plugins.failing import failure_of_a_plugin

    failure = failure_of_a_plugin(error)
    if failure is None:
        return
    traceback.print_exception(error)
    click.echo(f"Error: {failure}", err=True)
    sys.exit(1)


def _refusal_of_the_disk(error: OSError) -> str | None:
    """What to tell of a disk that is full or may not be used, wherever that came up; None for other errors."""
    from gymnast_core.runs.atomic import advice, is_forbidden, is_refusal

    if is_refusal(error):
        name = error.filename2 or error.filename
        if isinstance(name, str) and is_forbidden(error):
            return f"{name} cannot be used: {error.strerror}. {advice(error, Path(name))}"
        return f"{name or 'A file'} cannot be written: {error.strerror}. Make room, or write elsewhere."
    import tempfile

    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return "No folder for temporary files can be written: full, or read-only. Set TMPDIR to one that can."
    return None


def config_from(schema: Any, arguments: tuple[str, ...], resume: Path | None) -> Any:
    """The config that a command's arguments describe, or that of the run to resume.

    Raises `ConfigErrors` that lists everything that is known to be wrong before anything is loaded.
    """
    from gymnast_core.config import load_config, split_arguments
    from gymnast_core.plugins.early import check_early

    sources, overrides = split_arguments(arguments)
    if len(sources) > 1:
        raise ConfigError(f"Give one preset or file, not {' and '.join(sources)}; overrides look like key=value.")
    if resume is not None:
        if not (resume / "config.yaml").is_file():
            raise ConfigError(f"{resume} is not a run folder: it has no config.yaml. Give one that a run wrote.")
        sources = sources or [str(resume / "config.yaml")]
    if not sources and not overrides:
        from gymnast_core.config.presets import presets as installed

        kinds = (schema.kind, *getattr(schema, "takes", ()))
        known = ", ".join(preset.name for preset in installed() if preset.kind in kinds) or "none installed"
        raise ConfigError(f"What to {schema.kind}? Name a preset ({known}) or a YAML file.")
    with undisturbed():
        return load_config(schema, sources[0] if sources else None, overrides, checks=[check_early])


def print_summary(summary: dict[str, Any]) -> None:
    """Print what a command returns."""
    click.echo(json.dumps(summary, indent=2, default=str))


if __name__ == "__main__":
    main()
