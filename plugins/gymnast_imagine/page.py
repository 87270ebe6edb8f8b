"""The page that shows all videos of a folder; one file, without network access."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean

import jinja2

from gymnast_core.config import to_yaml
from gymnast_imagine.config import ImagineConfig
from gymnast_imagine.filming import START_REPEATED, Film, psnr_by_line
from gymnast_pages.charts import Chart, Point, Series
from gymnast_pages.templates import templates

EMBEDDED_BYTES = 12_000_000
"""Bytes of video put into the page; what does not fit is linked from `videos/` beside it."""


@dataclass(frozen=True)
class Item:
    """A film and the addresses of its files: data URIs, or relative paths where the page has no room."""

    film: Film
    video: str
    poster: str
    psnr: Mapping[str, Mapping[str, float]]
    """Line -> world -> mean, dB."""


def build_page(config: ImagineConfig, films: Sequence[Film], videos: Path) -> str:
    """The HTML of a finished folder whose videos are in `videos`."""
    left, items = EMBEDDED_BYTES, []
    for film in films:
        size = sum((videos / name).stat().st_size for name in (film.video, film.poster))
        embed = size <= left
        left -= size if embed else 0
        items.append(
            Item(
                film,
                _data_uri(videos / film.video, "video/mp4") if embed else f"videos/{film.video}",
                _data_uri(videos / film.poster, "image/jpeg") if embed else f"videos/{film.poster}",
                psnr_by_line(film.quality),
            )
        )
    return environment().get_template("page.html.j2").render(
        items=items, chart=_chart(films), config=config, config_text=to_yaml(config)
    )  # fmt: skip


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    return templates("gymnast_imagine")


def _chart(films: Sequence[Film]) -> Chart:
    """PSNR over time: each world, and the start frame repeated. Empty for a sweep, whose lines have no common mean."""
    if any(len(psnr_by_line(film.quality)) > 1 for film in films):
        films = []
    values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in (quality for film in films for quality in film.quality):
        values[one.world][one.frame].append(one.psnr)
        values[START_REPEATED][one.frame].append(one.psnr_start)
    series = [
        Series(world, [Point(frame, fmean(numbers)) for frame, numbers in sorted(frames.items())])
        for world, frames in values.items()
    ]
    return Chart("Likeness to the reference, mean over all videos", "PSNR, dB", series, x_label="after action")


def _data_uri(path: Path, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}"
