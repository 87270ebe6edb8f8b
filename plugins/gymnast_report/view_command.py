"""The command `gymnast view`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="Port on this machine; 0 takes any free one.")
@click.option("--open", "open_browser", is_flag=True, help="Open the page in a browser.")
def view(run: Path, port: int, open_browser: bool) -> None:
    """Serve the pages of a run, an evaluation, a probe or a bench to a browser of this machine. Ctrl-C ends it.

    Of a folder of runs, it shows a list with their states and results; ticked ones are compared. Pages follow runs
    that go on.

    The address holds a secret and nothing outside RUN is served. From another machine, forward the port:
    ssh -L PORT:127.0.0.1:PORT HOST. The pages also work without a server, by opening the files.
    """
    from gymnast_report.view import prepare
    from gymnast_report.viewing import viewer

    prepare(run)
    with viewer(run, port) as server:
        click.echo(f"{run} at {server.url}")
        if open_browser:
            click.launch(server.url)
        try:
            server.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            click.echo("Ended.", err=True)
