"""Datasets, each with one thing changed or damaged, drawn by a seed; and whether what is read of them is right.

    python tests/episodes/mutations.py [COUNT] [SEED]     # COUNT inputs of each kind and dataset, e.g. 500

Three kinds: what must be read as if nothing had happened; what must be so, or one `DataError`; and what may change the
meaning (a flipped bit of an action is another action), but must end in one `DataError` or be read, at once.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hand_made
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rlds_made
from clips import encode, pictures
from PIL import Image

from gymnast_core.errors import DataError
from gymnast_core.plugins.compose import registries

SECONDS = 20
ODD: list[Any] = [None, True, 0, -1, 2**63, 10**30, 1.5, float("nan"), float("inf"), "", "x", "../../x", "\ud800"]
ODD += [[], {}, [[]], [None], {"a": 1}, "9" * 50, [1e308], 10**400, {"task": []}, "{:9999999999d}"]
Draw = random.Random
Mutation = Callable[[Path, Draw], bool]
"""Changes one file of a dataset; False if there is none that it could change."""


def sound(root: Path) -> dict[str, Path]:
    """The datasets, by the name of what reads them and, behind a colon, of what is particular."""
    trials, folder = root / "trials", root / "worldgym"
    for i in range(2):
        trials.mkdir(exist_ok=True)
        Image.fromarray(pictures(1, i)[0]).save(trials / f"{i}.png")
        (trials / f"{i}.json").write_text('{"instruction": "do it", "partial_credit_criteria": "half"}')
        encode(folder / f"{i}.mp4", pictures(5, 9 * i), fps=10)
        np.savez(folder / f"{i}.npz", np.full((5, 10), 0.25 * i))
        (folder / f"{i}.json").write_text('{"instruction": "push", "source": "x"}')
    return {
        "trials": trials,
        "worldgym-episodes": folder,
        "lerobot:v2.1": hand_made.v21(root / "v21"),
        "lerobot:v3": hand_made.v3(root / "v3"),
        "lerobot:images": hand_made.v3_images(root / "v3_images"),
        "rlds": rlds_made.dataset(root / "rlds"),
    }


def read(kind: str, path: Path) -> list[dict[str, Any]]:
    """Everything that is read of a dataset."""
    name, args = kind.partition(":")[0], {"robot": None} if kind.startswith("worldgym") else {}
    dataset = registries().datasets.build(name, {"path": str(path), **args})
    items = dataset.tasks() if name == "trials" else dataset.episodes()
    return [{key: value for key, value in vars(item).items() if key != "id"} for item in items]


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    def alike(a: Any, b: Any) -> bool:
        if hasattr(a, "shape") and hasattr(b, "shape"):
            return bool(a.shape == b.shape and (a == b).all())
        return type(a) is type(b) and a == b

    return len(one) == len(other) and all(
        alike(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a.keys() | b.keys()
    )


# What changes nothing


def _one(root: Path, draw: Draw, *patterns: str) -> Path | None:
    found = sorted(path for pattern in patterns for path in root.rglob(pattern) if not path.name.startswith("."))
    return draw.choice(found) if found else None


def another_editor(root: Path, draw: Draw) -> bool:
    """A byte order mark, other line ends, other order of keys, empty lines at the end."""
    if (path := _one(root, draw, "*.json", "*.jsonl")) is None:
        return False
    lines = path.read_text().split("\n") if path.suffix == ".jsonl" else [path.read_text()]
    values = [json.loads(line) for line in lines if line.strip()]
    end = draw.choice(["\n", "\r\n"])
    indent = None if path.suffix == ".jsonl" else draw.choice([None, 1, "\t"])
    turned = [dict(sorted(value.items(), reverse=draw.random() < 0.5)) for value in values]
    text = end.join(json.dumps(value, indent=indent, ensure_ascii=False) for value in turned) + end * draw.randrange(3)
    path.write_text(text, encoding=draw.choice(["utf-8", "utf-8-sig"]))
    return True


def more_keys(root: Path, draw: Draw) -> bool:
    """Something that later versions write, too."""
    if (path := _one(root, draw, "info.json", "0.json", "features.json", "dataset_info.json")) is None:
        return False
    path.write_text(json.dumps(json.loads(path.read_text()) | {"new": draw.choice(ODD[:12])}))
    return True


def left_behind(root: Path, draw: Draw) -> bool:
    """What other tools leave beside the files."""
    path = _one(root, draw, "*")
    while path is None or not path.is_file():
        path = _one(root, draw, "*")
    path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7" + draw.randbytes(60))
    (path.parent / ".DS_Store").write_bytes(draw.randbytes(60))
    return True


def other_rows(root: Path, draw: Draw) -> bool:
    """The same rows in another order, in other list types, row groups and compression."""
    if (path := _one(root, draw, "file-*.parquet", "episode_*.parquet", "tasks.parquet")) is None:
        return False
    table = pq.ParquetFile(path).read()
    table = table.take(pa.array(draw.sample(range(table.num_rows), table.num_rows)))
    if "action" in table.column_names and draw.random() < 0.5:
        kind = draw.choice([pa.large_list, pa.list_, pa.list_view])(pa.float32())
        column = pa.array(table["action"].to_pylist(), kind)
        table = table.set_column(table.column_names.index("action"), "action", column)
    table = table.select(draw.sample(table.column_names, table.num_columns))
    pq.write_table(
        table,
        path,
        row_group_size=draw.randrange(1, 9),
        compression=draw.choice(["none", "zstd", "gzip"]),
        use_dictionary=draw.random() < 0.5,
    )
    return True


HARMLESS: list[Mutation] = [another_editor, more_keys, left_behind, other_rows]


# What must not change the meaning in silence


def cut(root: Path, draw: Draw) -> bool:
    path = _file(root, draw)
    if path.suffix == ".txt":
        return False
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])
    return True


def gone(root: Path, draw: Draw) -> bool:
    """A file is missing, or a folder stands in its place."""
    path = _file(root, draw)
    if path.name in OPTIONAL or path.suffix in (".png", ".mp4"):  # fewer trials or episodes, as one wanted
        return False
    path.unlink()
    if draw.random() < 0.5:
        path.mkdir()
    return True


OPTIONAL = ("tasks.jsonl", "tasks.parquet", "features.json", "dataset_info.json")


def flipped_where_checked(root: Path, draw: Draw) -> bool:
    """Bits of files that bring checksums."""
    if (path := _one(root, draw, "*.npz", "*.tfrecord-*")) is None:
        return False
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 3, 20])):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(data))
    return True


def rows_lost(root: Path, draw: Draw) -> bool:
    if (path := _one(root, draw, "data/*/*.parquet")) is None:
        return False
    table = pq.ParquetFile(path).read()
    keep = sorted(draw.sample(range(table.num_rows), table.num_rows - draw.randrange(1, 3)))
    keep += [draw.choice(keep)] if draw.random() < 0.5 else []
    pq.write_table(table.take(pa.array(keep)), path)
    return True


def numbers_that_contradict(root: Path, draw: Draw) -> bool:
    """A clock, frame rate, length, shape or index that does not fit the rest."""
    what = draw.choice(
        ["timestamp", "fps", "length", "shape", "frame_index", "episode_index", "dtype", "total_episodes"]
    )
    if what in ("timestamp", "frame_index", "episode_index"):
        if (path := _one(root, draw, "data/*/*.parquet")) is None:
            return False
        table = pq.ParquetFile(path).read()
        values = np.array(table[what].to_pylist())
        if what == "timestamp":
            values = values * draw.choice([1, 1000, 0, -1, 2]) + draw.choice([0.05, 0.2, -3.0])
        else:
            values[draw.randrange(len(values))] += draw.choice([1, -1, 100])
        pq.write_table(table.set_column(table.column_names.index(what), what, pa.array(values)), path)
        return True
    path = root / ("meta/episodes.jsonl" if what == "length" else "meta/info.json")
    if not path.exists():
        return False
    if what == "length":
        rows = [json.loads(line) for line in path.read_text().split("\n") if line]
        draw.choice(rows)["length"] += draw.choice([1, -1, 10**9])
        path.write_text("\n".join(map(json.dumps, rows)))
        return True
    about = json.loads(path.read_text())
    wrong = {"fps": draw.choice([5, 30, 11.5]), "total_episodes": draw.choice([1, 4, 10**6])}
    about |= {what: wrong[what]} if what in wrong else {}
    if what == "shape":
        about["features"]["action"]["shape"] = draw.choice([[4], [3, 2], [0]])
    path.write_text(json.dumps(about))
    return what != "dtype"


SERIOUS: list[Mutation] = [cut, gone, flipped_where_checked, rows_lost, numbers_that_contradict]


# What may change the meaning


def changed_json(root: Path, draw: Draw) -> bool:
    """One value replaced by an odd one or left out, or nesting without end."""
    if (path := _one(root, draw, "*.json", "*.jsonl")) is None:
        return False
    lines = path.read_text().split("\n") if path.suffix == ".jsonl" else [path.read_text()]
    at = draw.choice([i for i, line in enumerate(lines) if line.strip()])
    lines[at] = _odd(json.loads(lines[at]), draw)
    path.write_text("\n".join(lines))
    return True


def _odd(value: Any, draw: Draw) -> str:
    if draw.random() < 0.1:
        return draw.choice(["[", '{"a":']) * draw.choice([300, 100_000])
    places = list(_places(value))
    node, key = draw.choice(places)
    if draw.random() < 0.2:
        del node[key]
    else:
        node[key] = draw.choice(ODD)
    return json.dumps(value)


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in list(items):
        yield node, key
        yield from _places(child)


def changed_bytes(root: Path, draw: Draw) -> bool:
    path = _file(root, draw)
    data = path.read_bytes()
    at, out = draw.randrange(len(data) + 1), bytearray(data)
    for _ in range(draw.choice([1, 3, 20])):
        # Headers, which stand first (or, in parquet, last), are where it hurts.
        place = int(len(out) * draw.random() ** 3)
        out[place if draw.random() < 0.7 else -1 - place] = draw.choice([0, 255, draw.randrange(256)])
    path.write_bytes(draw.choice([data[:at] + draw.randbytes(20) + data[at:], data[:at] + data[at + 50 :], bytes(out)]))
    return True


def changed_header(root: Path, draw: Draw) -> bool:
    """A picture, video or array that claims to be larger than any memory."""
    if (path := _one(root, draw, "*.png", "*.npz", "*.mp4")) is None:
        return False
    data = bytearray(path.read_bytes())
    if path.suffix == ".png":
        data[16:24] = struct.pack(">II", *draw.choices([0, 1, 2**16, 2**31 - 1, 2**32 - 1], k=2))
    elif path.suffix == ".npz":
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({draw.choice([10**12, 10**30, -1])}, 10), }}"
        start = data.find(b"\x93NUMPY") + 10
        data[start : start + len(header)] = header.encode()
    else:
        at = data.find(draw.choice([b"stsz", b"stts", b"mdhd", b"avc1", b"stco", b"tkhd"]))
        data[at + 8 + draw.randrange(24)] = draw.choice([0, 127, 255])
    path.write_bytes(bytes(data))
    return True


ANY: list[Mutation] = [changed_json, changed_bytes, changed_header]
KINDS = {"harmless": HARMLESS, "serious": SERIOUS, "any": ANY}


def _file(root: Path, draw: Draw) -> Path:
    return draw.choice(sorted(path for path in root.rglob("*") if path.is_file()))


class Slow(Exception):
    """Reading took too long."""


@contextmanager
def limited() -> Iterator[None]:
    def slow(*_: object) -> None:
        raise Slow(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, slow)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(kind: str, path: Path, right: list[dict[str, Any]]) -> str:
    """same, other, refused, or what else was raised; told: some items are left out, with a warning."""
    told: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda line: told.append(line.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        with limited():
            found = read(kind, path)
    except DataError as error:
        return "refused" if "\n" not in str(error) and "Error: " not in str(error) else f"unclear: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        logging.getLogger().removeHandler(handler)
    if same(found, right):
        return "same"
    return "told" if told and all(any(same([item], [one]) for one in right) for item in found) else "other"


ALLOWED = {"harmless": ("same",), "serious": ("same", "refused", "told"), "any": ("same", "other", "refused", "told")}


def faults(kind: str, source: Path, group: str, count: int, seed: int, tally: Counter[str]) -> list[str]:
    """What is wrong about `count` mutations of a dataset, each with the words to find it again."""
    right, found = read(kind, source), []
    for i in range(count):
        draw = random.Random(f"{seed}/{kind}/{group}/{i}")
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch, source.name)
            shutil.copytree(source, copy)
            mutation = draw.choice(KINDS[group])
            if not mutation(copy, draw):
                continue
            seen = outcome(kind, copy, right)
        tally[seen.partition(":")[0]] += 1
        if seen not in ALLOWED[group]:
            found.append(f"{kind}, {group} {i} of seed {seed} ({mutation.__name__}): {seen}")
    return found


def main(count: int = 100, seed: int = 0) -> int:
    """All kinds of all datasets; prints a line each. Returns how many are wrong."""
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        for kind, source in sound(Path(scratch)).items():
            for group in KINDS:
                began, tally = time.monotonic(), Counter[str]()
                found = faults(kind, source, group, count, seed, tally)
                wrong += len(found)
                print(
                    f"{kind} {group} [{time.monotonic() - began:.0f} s] {dict(tally)}", *found, sep="\n  ", flush=True
                )
    return wrong


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])) > 0)
