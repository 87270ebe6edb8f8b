"""The command `gymnast probe`."""

from __future__ import annotations

from pathlib import Path

import click

from gymnast_core.cli import RESUME, SOURCE_AND_OVERRIDES, config_from, print_summary
from gymnast_core.plugins.importing import undisturbed


@click.command()
@SOURCE_AND_OVERRIDES
@RESUME
def probe(arguments: tuple[str, ...], resume: Path | None) -> None:
    """How far policies fall out of distribution: the same tasks with an edited instruction or an edited first frame.

    \b
    what is probed     policy=... or policies.LABEL=..., world_model=... reward_model=... tasks=... episodes=N
    edits of words     paraphrase, other-colour, other-object (objects=[...]), other-goal, nonsense
    edits of pictures  distractor, recolour, swap, occlude, brightness (factor=X), crop (share=X)
    by a provider      generated-image (editor=openai|diffusers prompt="..."), proposed-instruction

    edits.LABEL={edit: NAME, ...} chooses the edits and their settings, edits.NAME={} one with its defaults; without
    any, all that need no provider are made. Success is judged by the new instruction where an edit asks for something
    else, by the original one where it does not (paraphrase, nonsense, pictures). Tasks to which an edit does not apply
    are left out and counted; an edit that asks for something else is refused where the judge is a simulator that goes
    on to judge the old goal. In a learned world the world model and the judge see an edited picture, too: check a fall
    by eye (videos/) before you blame the policy.

    Reports the fall of each policy on the same tasks, with paired 95 % intervals and exact tests. Writes results.jsonl
    (a row a trial; `world` is the edit), summary.json, pictures/, videos/ and probe.html. --resume goes on, or adds
    policies and edits.

    \b
    gymnast probe probe-tabletop
    gymnast probe --resume RUN 'edits.banana={edit: generated-image, prompt: "Add a banana; change nothing else."}'
    """
    from gymnast_probe.config import ProbeConfig

    config = config_from(ProbeConfig, arguments, resume)
    with undisturbed():
        from gymnast_probe.probing import probe_command

    summary = probe_command(config, resume=resume)
    print_summary(summary)
    click.echo(f"Results: {summary['output']} (see probe.html there)")
