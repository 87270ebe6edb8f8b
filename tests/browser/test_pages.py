"""Every page that a command leaves behind: offline, without errors, on a phone, with videos that play and tables that
sort."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chromium import Browser
from fake_run import make_run

from gymnast_bench.config import BenchConfig
from gymnast_bench.page import build_bench_page
from gymnast_bench.rows import Measured, Row
from gymnast_core.config import to_yaml

FITS = "document.documentElement.scrollWidth <= 375"


def bench_row(optimizer: str, seed: int, rate: float | None, **changes: Any) -> Row:
    measured = Measured() if rate is None else Measured(rate, rate - 0.1, rate + 0.1, 40, 1)
    values: dict[str, Any] = {
        "cell": f"{optimizer}-{seed}", "labels": {"optimizer": optimizer}, "seed": seed, "status": "done",
        "reason": "", "exit_code": 0, "before": Measured(0.3, 0.2, 0.4, 40, 0), "after": measured,
        "difference": None if rate is None else rate - 0.3, "difference_low": None if rate is None else -0.1,
        "difference_high": None if rate is None else 0.5, "imagined_success": [(1, 0.2), (2, 0.4), (3, 0.5)],
        "evaluations": [(0, 0.3, 0.2, 0.4)], "iterations": 3, "seconds": 100.0 + seed, "attempts": 1,
        "peak_memory_bytes": 10**9 * seed, "rollouts": 96, "frames": 1536, "dollars": 0.5 * seed,
        "command": f"OMP_NUM_THREADS=1 gymnast train tabletop 'optimizer={{name: {optimizer}}}' seed={seed} output=x",
    }  # fmt: skip
    return Row(**{**values, **changes})


@pytest.fixture(scope="module")
def bench_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    config = BenchConfig(base="tabletop", axes={"optimizer": {"grpo": [], "rloo": ["optimizer=rloo"]}}, seeds=[1, 2])
    (folder / "config.yaml").write_text(to_yaml(config))
    hostile = "ValueError: </td><script>console.error('x')</script>"
    rows = [
        bench_row("grpo", 1, 0.6), bench_row("grpo", 2, 0.8), bench_row("rloo", 1, 0.7),
        bench_row("rloo", 2, None, status="failed", reason=hostile, exit_code=1),
    ]  # fmt: skip
    return build_bench_page(folder, rows, config)


@pytest.fixture(scope="module")
def report_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("report") / "run"
    make_run(run)
    return run / "report.html"


def opened(browser: Browser, page: Path) -> None:
    """Open a page and check what is true of all of them."""
    browser.open(page.as_uri())
    assert browser.value(FITS)
    assert browser.requests == [page.as_uri()]  # itself, and nothing else
    assert browser.problems == []
    unnamed = "[...document.querySelectorAll('svg,video,img')].filter(e => !(e.ariaLabel || e.alt || e.title)).length"
    assert browser.value(unnamed) == 0


def column(browser: Browser, table: str, index: int) -> list[str]:
    texts = f"[...document.querySelectorAll('{table} tbody tr')].map(r => r.cells[{index}].textContent.trim())"
    return browser.value(texts)


def click_heading(browser: Browser, table: str, index: int) -> None:
    browser.value(f"document.querySelectorAll('{table} thead button')[{index}].click()")


def test_a_report_plays_and_sorts(browser: Browser, report_page: Path) -> None:
    opened(browser, report_page)
    count = browser.value("document.querySelectorAll('video').length")
    assert count > 10
    # Every video decodes to its last frame.
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    browser.value("document.querySelectorAll('video').forEach(v => { v.preload = 'auto'; v.currentTime = 1e6; })")
    browser.wait(
        "[...document.querySelectorAll('video')].every(v => v.readyState >= 2 && v.videoWidth > 0 && !v.error)"
    )
    assert browser.value(FITS)
    before = column(browser, "table.sortable", 0)
    assert len(before) == 3
    click_heading(browser, "table.sortable", 0)
    click_heading(browser, "table.sortable", 0)
    after = column(browser, "table.sortable", 0)
    assert after != before and sorted(after) == sorted(before)
    rates = "[...document.querySelectorAll('table.sortable tbody tr')].map(r => Number(r.cells[1].dataset.value))"
    click_heading(browser, "table.sortable", 1)
    assert browser.value(rates) == sorted(browser.value(rates))
    assert browser.problems == []


def test_a_bench_sorts_by_any_column(browser: Browser, bench_page: Path) -> None:
    opened(browser, bench_page)
    # Two seeds show nothing: 12.7 standard errors on either side.
    headline = browser.value("document.querySelector('h1').textContent")
    assert headline == ("No gain over the policy before training is shown; the largest: grpo, +40.0 points, to 70.0 %")
    click_heading(browser, "#cell-table", 4)  # after: ascending, what has no result first
    assert [text[:4] for text in column(browser, "#cell-table", 4)] == ["–", "60.0", "70.0", "80.0"]
    click_heading(browser, "#cell-table", 4)
    assert column(browser, "#cell-table", 4)[0].startswith("80.0 %")
    assert browser.value("document.querySelectorAll('#cell-table th')[4].ariaSort") == "descending"
    click_heading(browser, "#cell-table", 8)  # dollars
    assert column(browser, "#cell-table", 8) == ["$0.50", "$0.50", "$1.00", "$1.00"]
    click_heading(browser, "#combinations", 1)
    assert column(browser, "#combinations", 0) == ["grpo", "rloo"]  # both 70 %: the order stays
    assert "console.error" in browser.value("document.body.innerText")
    browser.value("document.querySelector('#cell-table details').open = true")
    assert "gymnast train tabletop" in browser.value("document.querySelector('#cell-table pre').innerText")
    assert browser.value(FITS)
    assert browser.value("document.querySelectorAll('svg circle').length") == 4 * 3 + 4 * 1
    assert browser.problems == []


def test_a_bench_says_what_it_knows_and_how_well(bench_page: Path) -> None:
    page = bench_page.read_text()
    # Mean 0.7 of two seeds 0.6 and 0.8: standard error 0.1, t(0.975, 1) = 12.7: no more than [0, 1].
    assert "± 10.0 standard error" in page and "0.0 % to 100.0 %" in page
    assert "1 of 2" in page and "1 without a result" in page
    assert "<script>console" not in page


def test_an_evaluation_is_clean_and_fits(browser: Browser, tmp_path: Path) -> None:
    from gymnast_evaluation.page import build_evaluation_page
    from gymnast_evaluation.summary import Scores, summarise
    from gymnast_evaluation.trials import Trial, TrialFile

    (tmp_path / "config.yaml").write_text("kind: evaluate\n")
    file = TrialFile(tmp_path / "results.jsonl", {0: 12})
    for policy in ("first", "second"):
        file.append([
            Trial(policy, "real", i, f"task-{i}", f"push {i % 3}", 0, 0, 0, float(i % 2), None, None, None, "", 0.0)
            for i in range(12)
        ])  # fmt: skip
    summary = summarise(Scores(file.trials, ["first", "second"], ["real"], "instruction"))
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    opened(browser, build_evaluation_page(tmp_path))
    browser.wait("document.querySelectorAll('#rows tbody tr').length === 24")
    assert browser.problems == []
