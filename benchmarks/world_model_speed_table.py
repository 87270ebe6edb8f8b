"""What `world_model_speed.py` measured, as a page."""

from __future__ import annotations

from typing import Any


def table(found: dict[str, Any]) -> list[str]:
    s = found["size"]
    lines = [
        f"**{s['name']}**: width {s['network']['dim']}, {s['network']['layers']} layers, {s['tokens']} tokens a frame, "
        f"batch {s['batch']}, window {s['window']}, {s['steps']} steps, {s['frames']} frames; random weights.",
        "",
        "| | frames/s | × recomputing with PyTorch's products | × recomputing with the same products | attainable "
        "| of attainable | of matmul rate | largest error | cache, MiB | cost late ÷ early, full window |",
        "|" + "---|" * 10,
    ]
    for r in found["rows"]:
        error = "–" if r["max_error"] is None else f"{r['max_error']:.1e}"
        flat = "–" if r["late_over_early_full_window"] is None else f"{r['late_over_early_full_window']:.2f}"
        reached = "–" if r["of_attainable"] is None else f"{100 * r['of_attainable']:.0f} %"
        lines.append(
            f"| {r['name']} | {r['frames_per_second']:.2f} | {r['times_recomputing_pytorch']:.1f} "
            f"| {r['times_recomputing']:.1f} | {r['work_ratio']:.1f} | {reached} "
            f"| {100 * r['matmul_fraction']:.0f} % | {error} | {r['cache_mib']:.0f} | {flat} |"
        )
    return [*lines, ""]


def report(found: dict[str, Any]) -> str:
    rates = ", ".join(f"{2 * rate / 1e9:.0f} GFLOP/s {name}" for name, rate in found["matmul_rates"].items())
    lines = [
        f"{found['machine']}, {found['threads']} thread(s), torch {found['torch']}. Large products: {rates}.",
        "",
        "Errors are largest absolute differences of latents (unit variance) over one episode, 10 frames past the "
        "window, from recomputing with the same chunk length in float32. Attainable: multiply-adds of recomputing "
        "over the variant's, which is how much faster it is at the same rate; of attainable: × recomputing with the "
        "variant's own products and precision, over that. Rates refer to the fastest large product in the same "
        "precision.",
        "",
    ]
    for size in found["sizes"]:
        lines += table(size)
    if quality := found.get("trained"):
        names = [name for name in quality if name != "episodes"]
        lines += [
            f"Shipped tabletop model (window 8), {quality['episodes']} episodes, PSNR in dB:",
            "",
            "| frame | " + " | ".join(quality[names[0]]) + " |",
            "|---" * (1 + len(quality[names[0]])) + "|",
            *(f"| {name} | " + " | ".join(f"{x:.1f}" for x in quality[name].values()) + " |" for name in names),
        ]
    return "\n".join(lines) + "\n"
