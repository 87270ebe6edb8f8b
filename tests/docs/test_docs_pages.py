"""What the written pages tell people to type, and the files that they name, exist; the site is built from them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from gymnast_bench.matrix import cells_of
from gymnast_core.cli import cli
from gymnast_core.config import load_config
from gymnast_core.plugins.registry import registries

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
WRITTEN = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
HELP = ("plugins/gymnast_bench/command.py", "plugins/gymnast_bench/matrix.py")
"""Code that shows users a matrix."""
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    return [(page, body) for page, text in WRITTEN.items() for kind, body in BLOCK.findall(text) if kind == language]


def command_lines() -> list[str]:
    """Every `gymnast …` of the pages' shell blocks, without what stands around it."""
    lines = [line.strip() for _, body in blocks("sh") for line in body.splitlines()]
    found = [re.search(r"(?:^|[\"'] )gymnast (.*)", line) for line in lines]
    return [match.group(1) for match in found if match]


def test_there_are_commands() -> None:
    assert len(command_lines()) > 30


@pytest.mark.parametrize("line", sorted(set(command_lines())))
def test_a_command_is_understood(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gymnast_docs.configs import schemas

    monkeypatch.chdir(tmp_path)
    for text in WRITTEN.values():
        # A page that says "`NAME.yaml`:" and then what is in it.
        for file, body in re.findall(r"`([\w-]+\.yaml)`:\n\n```yaml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
            (tmp_path / file).write_text(body)
    name, *arguments = shlex.split(line.partition(" | ")[0], comments=True)
    context = click.Context(cli, info_name="gymnast")
    command = cli.get_command(context, name)
    assert command is not None, name
    while isinstance(command, click.Group):
        name, *arguments = arguments
        command = command.get_command(context, name)
        assert command is not None, name
    made = command.make_context(name, list(arguments), parent=context)
    sources = [argument for argument in arguments if "=" not in argument]
    is_of_a_run = made.params.get("resume") or any(source.startswith("runs/") for source in sources)
    if name in schemas() and not is_of_a_run:
        config = load_config(schemas()[name], sources[0] if sources else None, [a for a in arguments if "=" in a])
        assert name != "bench" or cells_of(config)


def test_yaml_blocks_name_what_is_installed_and_its_keys() -> None:
    kinds = {registry.kind.replace(" ", "_"): registry for registry in registries()}
    kinds |= {"tasks": registries().datasets, "episodes": registries().datasets}
    checked = 0
    for page, body in blocks("yaml"):
        # A page may show alternatives of one key, each on a line of its own.
        lines = body.splitlines()
        alone = all(re.match(r"\w+: \{.*\}$", line) for line in lines)
        for text in lines if alone else [body]:
            for key, part in (yaml.safe_load(text) or {}).items() if not text.startswith(" ") else ():
                if key not in kinds:
                    continue
                cls = kinds[key].load(part["name"])
                unknown = set(part.get("args", {})) - {field for field in cls.Config.__dataclass_fields__}
                assert not unknown, f"{page}: {unknown}"
                checked += 1
    assert checked >= 8


def test_an_optimizer_that_is_named_has_its_arguments() -> None:
    """Alone it would drop those of the base, and train at the default rate, a thirtieth of the tabletop's."""
    texts = WRITTEN | {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", *HELP)}
    alone = [(page, found) for page, text in texts.items() for found in re.findall(r"optimizer(?:\.name)?=\w\S*", text)]
    assert alone == []
    recipes = [recipe for text in texts.values() for recipe in re.findall(r"optimizer=\{name: .*?\}", text, re.DOTALL)]
    assert len(recipes) >= 8
    assert [recipe for recipe in recipes if not re.search(r"learning_rate: \d", recipe)] == []


def test_files_that_are_named_exist() -> None:
    text = "".join(WRITTEN.values())
    paths = set(re.findall(r"`((?:benchmarks|plugins|docs)/[\w/.-]+\.\w+)`", text))
    assert paths >= {"benchmarks/results/tabletop.md"}
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_numbers_with_a_source_are_in_it() -> None:
    """A section that names result files takes its decimal numbers from them."""
    checked = 0
    for page, text in WRITTEN.items():
        for section in re.split(r"^## ", text, flags=re.MULTILINE):
            sources = re.findall(r"`(benchmarks/results/\w+\.md)`", section)
            if not sources:
                continue
            results = "".join((ROOT / source).read_text() for source in sources)
            known = [float(number) for number in re.findall(r"\d+\.\d+(?:e-?\d+)?", results)]
            for number in re.findall(r"\d+\.\d+(?:e-?\d+)?", re.sub(r"`[^`]*`|arXiv \S+", "", section)):
                digits = 400 if "e" in number else len(number.partition(".")[2])  # as it stands there, or rounded
                assert any(round(value, digits) == float(number) for value in known), f"{page}: {number}"
                checked += 1
    assert checked >= 10


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material")
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_is_built_without_a_warning(site: Path) -> None:
    names = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert names >= {"index.html", "tutorial.html", "how-to/judge.html", "reference/hooks.html", "stability.html"}


def test_pages_ask_nothing_of_other_hosts(site: Path) -> None:
    for path in site.rglob("*.html"):
        # A video that lies in the page itself asks nobody, whatever its base64 spells.
        html = re.sub(r"data:[\w/]+;base64,[\w+/=]+", "data:", path.read_text(encoding="utf-8"))
        tags = re.findall(r"<(?:script|img|iframe|source|video|link)\b[^>]*>", html)
        loaded = [tag for tag in tags if not re.search(r"rel=[\"']?(?:canonical|next|prev)\b", tag)]
        assert loaded
        assert [tag for tag in loaded if "//" in tag] == [], path.name


def test_the_generator_itself_is_not_published(site: Path) -> None:
    assert not list(site.rglob("*.py")) and not (site / "gymnast_docs").exists()
