"""A folder of runs as rows: what `gymnast view` lists on its start page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from markupsafe import Markup

from gymnast_core.errors import GymnastError
from gymnast_core.runs.results import Evaluation, Run, position, read_kind, read_run
from gymnast_pages.built import BUILT, PAGES
from gymnast_pages.charts import Point
from gymnast_pages.claims import rate
from gymnast_pages.facts import Facts, facts_of
from gymnast_pages.measure import Measure
from gymnast_pages.state import State, state_of
from gymnast_pages.wording import counted
from gymnast_report.claimed import Claimed, read_claim
from gymnast_report.curves import evaluated, learned_measure, measure_of, points
from gymnast_report.view import SOURCES, runs_in

COMPARED = ("train", "fit")
"""Commands whose runs can be compared."""
WIDTH, HEIGHT, MARGIN = 120, 32, 3


@dataclass(frozen=True)
class RunRow:
    """One run of the list."""

    name: str
    """Its folder, relative to the one that is shown."""
    page: str
    """Address of its page, which is built when it is asked for; "" for a folder that has none."""
    kind: str
    state: State
    steps: int
    facts: Facts
    measure: Measure
    value: float | None
    """Of its latest evaluation: success, or what the judge gives instead."""
    result: str
    """The same in words, by the rule of headlines."""
    interval: str
    note: str
    """When it was measured, and how often."""
    sparkline: Markup
    problem: str = ""
    """Why the folder could not be read."""

    @property
    def can_be_compared(self) -> bool:
        return self.kind in COMPARED and not self.problem


def run_rows(folder: Path) -> list[RunRow]:
    """The runs in a folder and below it, those that go on first, then the newest."""
    rows = [run_row(path, folder) for path in runs_in(folder)]
    return sorted(rows, key=lambda row: (not row.state.alive, -(row.state.seen or 0.0)))


def run_row(path: Path, folder: Path) -> RunRow:
    """The row of one run; of a damaged folder, what is wrong with it."""
    try:
        state = state_of(path)
        return _row(path, folder, state, _signature(path))
    except GymnastError as error:
        return _problem(path, folder, str(error))


def page_of(path: Path, kind: str) -> str:
    """The name of the page of a run folder, also before it is there; "" if it has none and none can be built."""
    there = next((name for name in PAGES if (path / name).exists()), None)
    return there or BUILT.get(kind, "")


def latest(run: Run) -> Evaluation | None:
    """The evaluation that says most about where the run is now."""
    return max(run.evaluations.values(), key=lambda one: (one.iteration, one.label == "after"), default=None)


@lru_cache(maxsize=512)
def _row(path: Path, folder: Path, state: State, signature: tuple[tuple[str, int], ...]) -> RunRow:
    """`signature` says which state of the files this is the row of."""
    kind = read_kind(path) or "train"
    if kind not in COMPARED:
        return _claimed_row(path, folder, kind, state)
    run = read_run(path)
    found, steps = latest(run), int(position(run.metrics[-1]) or 0) if run.metrics else 0
    facts, name = facts_of(run.config), _name(path, folder)
    measure = Measure() if found is None else measure_of(found)
    interval, note, result = "", "", "–"
    if found is not None:
        facts = facts.but(judge=found.reward_model, world=found.world)
        result = rate(measure, found.rate, found.interval, found.n)
        interval = measure.interval(found.interval) if found.interval and found.rate is not None else ""
        when = "before training" if found.label == "before" else f"after {counted(found.iteration, 'iteration')}"
        note = f"n = {found.n}, {when}" + ("" if measure.is_success else f", {measure.name}")
    return RunRow(
        name, _address(name, page_of(path, kind)), kind, state, steps, facts, measure,
        None if found is None else found.rate, result, interval, note, _sparkline(run),
    )  # fmt: skip


def _claimed_row(path: Path, folder: Path, kind: str, state: State) -> RunRow:
    """The row of a folder whose page another command writes: what that page claims."""
    name, page = _name(path, folder), page_of(path, kind)
    claimed = read_claim(path / page) if page and (path / page).is_file() else Claimed()
    facts = facts_of((path / "config.yaml").read_text(encoding="utf-8")).but(
        **{key: value for key, value in claimed.facts.items() if key in ("judge", "world", "policy", "algorithm")}
    )
    n = claimed.facts.get("n", "")
    return RunRow(
        name, _address(name, page), kind, state, 0, facts, Measure(), claimed.value,
        claimed.headline or "–", "", f"n = {n}" if n and claimed.headline else "", Markup(""),
    )  # fmt: skip


def _problem(path: Path, folder: Path, problem: str) -> RunRow:
    name = _name(path, folder)
    kind = read_kind(path) or ""
    return RunRow(
        name, _address(name, page_of(path, kind)), kind, State("lost"), 0, Facts(), Measure(), None, "–", "", "",
        Markup(""), problem,
    )  # fmt: skip


def _address(name: str, page: str) -> str:
    return f"{name}/{page}" if name and page else page


def _name(path: Path, folder: Path) -> str:
    name = path.relative_to(folder).as_posix()
    return "" if name == "." else name


def _signature(path: Path) -> tuple[tuple[str, int], ...]:
    files = [file for name in SOURCES for file in path.glob(name)] + [path / name for name in PAGES]
    return tuple((file.name, file.stat().st_mtime_ns) for file in files if file.exists())


def _sparkline(run: Run) -> Markup:
    """What the run learned from, and its evaluations as dots, small; empty where there is nothing."""
    learned, column = learned_measure(run)
    line = points(run, column)
    dots = evaluated(run).get(learned, [])
    if run.kind == "fit":
        loss = next((points(run, name) for name in ("loss", "validation/loss") if points(run, name)), [])
        line, dots = loss, []
    everything = [*line, *dots]
    if not everything:
        return Markup("")
    bounds = (0.0, 1.0) if learned.is_success and run.kind != "fit" else None
    x, y = _scales(everything, bounds)
    path = " ".join(
        f"{'M' if number == 0 else 'L'}{x(point.x):.1f} {y(point.y):.1f}" for number, point in enumerate(line)
    )
    circles = Markup("").join(
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2.4"/>').format(x(point.x), y(point.y)) for point in dots
    )
    label = learned.name
    if line:
        label = f"{learned.name if run.kind != 'fit' else 'loss'}, {line[0].y:.3g} at first, {line[-1].y:.3g} at last"
    return Markup(
        '<svg class="spark" viewBox="0 0 {} {}" role="img" aria-label="{}"><path class="line s0" d="{}"/>'
        '<g class="s1">{}</g></svg>'
    ).format(WIDTH, HEIGHT, label, path, circles)


def _scales(found: Sequence[Point], bounds: tuple[float, float] | None):  # type: ignore[no-untyped-def]
    xs, ys = [point.x for point in found], [point.y for point in found]
    left, right = min(xs), max(xs)
    low, high = bounds or (min(ys), max(ys))

    def place(value: float, least: float, most: float, size: int) -> float:
        share = (value - least) / (most - least) if most > least else 0.5
        return MARGIN + share * (size - 2 * MARGIN)

    return (lambda value: place(value, left, right, WIDTH)), (lambda value: HEIGHT - place(value, low, high, HEIGHT))
