"""benchmarks/tabletop_shares.py: what a sample is counted as, and a page that says what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import tabletop_shares as shares  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.parametrize(
    ("library", "symbol", "kind"),
    [
        ("[JIT] tid 23204", "[.] 0x00007f66b961d000", shares.PRODUCTS),
        ("libtorch_cpu.so", "[.] mkl_blas_avx512_sgemm_kernel_0", shares.PRODUCTS),
        ("libtorch_cpu.so", "[.] at::native::bmm_out_or_baddbmm_", shares.PRODUCTS),
        ("libtorch_cpu.so", "[.] at::native::(anonymous namespace)::softmax_lastdim_kernel_impl", shares.ELEMENTS),
        ("libtorch_cpu.so", "[.] at::native::AVX2::reduced_float_copy_kernel", shares.ELEMENTS),
        ("libc.so.6", "[.] __memmove_avx512_unaligned_erms", shares.ELEMENTS),
        ("cbbucsjkuogccckl4tvicpcpn3olubfh44k5wdronp2dkm56v7a5.main.so", "[.] kernel", shares.ELEMENTS),
        ("libc.so.6", "[.] _int_malloc", shares.MEMORY),
        ("[kernel.kallsyms]", "[k] clear_page_erms", shares.MEMORY),
        ("libtorch_cpu.so", "[.] c10::impl::OperatorEntry::lookup", shares.INTERPRETER),
        ("libpython3.11.so.1.0", "[.] _PyEval_EvalFrameDefault", shares.INTERPRETER),
        ("libx264-d6533a8d.so.165", "[.] x264_8_trellis_coefn", shares.OTHER),
    ],
)
def test_each_sample_belongs_to_one_kind_of_work(library: str, symbol: str, kind: str) -> None:
    assert shares.kind_of(library, symbol) == kind


def test_shares_are_of_all_samples() -> None:
    report = "# samples|...\n 30|[JIT] tid 1 |[.] 0x0\n 5|libc.so.6|[.] malloc\n 5|libx264.so|[.] a|b\n\n"
    found = shares.shares(report)
    assert found[shares.PRODUCTS] == 0.75 and found[shares.MEMORY] == found[shares.OTHER] == 0.125
    assert sum(found.values()) == 1.0
    with pytest.raises(SystemExit, match="no sample"):
        shares.shares("# nothing\n")


def test_the_page_says_what_the_numbers_say() -> None:
    data = json.loads((RESULTS / "tabletop_shares.json").read_text())
    assert (RESULTS / "tabletop_shares.md").read_text() == shares.page(data)
    for column in data["ways"].values():
        assert sum(column["shares"].values()) == pytest.approx(1.0)
