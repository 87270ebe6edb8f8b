"""Builds `probe.html`: one file that works offline."""

from __future__ import annotations

import base64
import shlex
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2

from gymnast_core.errors import DataError
from gymnast_core.reading import read_object
from gymnast_core.runs.atomic import write_text
from gymnast_core.runs.commands import resume_command
from gymnast_pages import claims
from gymnast_pages.facts import Facts, facts_of
from gymnast_pages.measure import Measure
from gymnast_pages.templates import templates
from gymnast_pages.wording import counted, p_value
from gymnast_probe.config import ORIGINAL
from gymnast_probe.pictures import Picture, read_pictures


def build_probe_page(folder: Path) -> Path:
    """Write `folder/probe.html` and return its path. Raises `DataError` if the probe has not ended."""
    path = folder / "summary.json"
    if not path.exists():
        raise DataError(f"{folder} holds no summary.json: the probe has not ended. {resume_command('probe', folder)}")
    summary = read_object(path, allow_nan=True).values
    html = _environment().get_template("probe.html.j2").render(_context(folder, summary))
    target = folder / "probe.html"
    write_text(target, html)
    return target


def _context(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    cells = [
        (policy, label, cell)
        for policy, row in summary["policies"].items()
        for label, cell in row.items()
        if label != ORIGINAL
    ]
    proven = [
        (policy, label, cell)
        for policy, label, cell in cells
        if cell["fall"] and cell["fall"]["p_holm"] < 0.05 and cell["fall"]["difference"] < 0
    ]
    pictures: dict[str, list[tuple[Picture, str, str]]] = {}
    for picture in read_pictures(folder):
        if picture.label != ORIGINAL:
            both = (_data_uri(folder / "pictures" / name) for name in (picture.original, picture.file))
            pictures.setdefault(picture.label, []).append((picture, *both))  # type: ignore[arg-type]
    quoted = shlex.quote(str(folder))
    return {
        "title": folder.resolve().name,
        "summary": summary,
        "shown": Measure(summary["judge"]["kind"], summary["judge"]["name"]),
        "cells": cells,
        "original": ORIGINAL,
        "facts": _facts(folder, summary),
        "fall": _fall,
        "worst": min(proven, key=lambda found: found[2]["fall"]["difference"], default=None),
        "pictures": pictures,
        "config": (folder / "config.yaml").read_text(encoding="utf-8"),
        "commands": [
            ("Add a policy or an edit, or go on after a stop", f"gymnast probe --resume {quoted} policies.LABEL=..."),
            ("Repeat it", f"gymnast probe {quoted}/config.yaml output={quoted}-again"),
        ],
    }


def _fall(measure: Measure, fall: dict[str, Any]) -> str:
    """How far a policy falls: of few trials, the interval first."""
    if fall["n"] >= claims.FEW or fall["interval"] is None:
        return measure.change(fall["difference"])
    return f"{measure.changes(fall['interval'])} ({counted(fall['n'], 'pair')})"


def _facts(folder: Path, summary: dict[str, Any]) -> Facts:
    trials = [row[ORIGINAL]["n"] for row in summary["policies"].values()]
    facts = facts_of((folder / "config.yaml").read_text(encoding="utf-8"))
    return facts.but(judge=summary["judge"]["name"], n=f"{counted(max(trials, default=0), 'trial')} of each policy")


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return templates("gymnast_probe", p_value=p_value)
