"""`gymnast new`: names, refusals, and what is written."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gymnast_core.errors import ConfigError
from gymnast_new.command import new
from gymnast_new.kinds import KINDS


def run(*arguments: object) -> Result:
    return CliRunner().invoke(new, [str(argument) for argument in arguments])


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_is_complete_and_says_what_to_type_next(tmp_path: Path, kind: str) -> None:
    done = run(kind, "two-words", "--into", tmp_path)
    assert done.exit_code == 0, done.exception
    folder = tmp_path / "gymnast-two-words"
    assert f"gymnast check {kind} two-words" in done.output
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    ((group, entries),) = project["entry-points"].items()
    module, _, name = entries["two-words"].partition(":")
    assert group == KINDS[kind].group
    source = (folder / f"{module.replace('.', '/')}.py").read_text()
    assert f"class {name}(" in source if name else "def gymnast_" in source
    for expected in (
        "README.md",
        "LICENSE",
        ".gitignore",
        ".github/workflows/ci.yml",
        "tests/test_gymnast_two_words.py",
    ):
        assert (folder / expected).stat().st_size > 20
    assert "Apache License" in (folder / "LICENSE").read_text()
    texts = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    assert not any("<<" in text or ">>" in text or "{%" in text for text in texts)


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("polcy", "mine", "No kind of plugin 'polcy'. Did you mean 'policy'?"),
        ("policy", "MyPolicy", "Try: gymnast new policy my-policy"),
        ("policy", "2-fast", "Try: gymnast new policy fast"),
        ("policy", "a--b", "single hyphens"),
        ("policy", "../up", "Try: gymnast new policy up"),
        ("policy", "", "cannot be a plugin's name"),
        ("policy", "openvla", "'openvla' is taken in gymnast.policies, by gymnast"),
        ("hooks", "report", "'report' is taken in gymnast.hooks"),
        ("dataset", "core", "There is a package 'gymnast_core' already"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(tmp_path: Path, kind: str, name: str, words: str) -> None:
    done = run(kind, name, "--into", tmp_path)
    assert isinstance(done.exception, ConfigError)
    assert words in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "gymnast-mine").mkdir()
    done = run("policy", "mine", "--into", tmp_path)
    assert isinstance(done.exception, ConfigError)
    assert "exists. Choose another name" in str(done.exception)
    assert not list((tmp_path / "gymnast-mine").iterdir())


def test_the_prefix_of_the_distribution_may_be_typed(tmp_path: Path) -> None:
    assert run("policy", "gymnast-mine", "--into", tmp_path).exit_code == 0
    assert (tmp_path / "gymnast-mine" / "gymnast_mine" / "policy.py").is_file()


def test_a_preset_that_is_added_is_part_of_the_built_package(tmp_path: Path) -> None:
    """What a wheel holds is what setuptools copies when it builds: whoever adds the folder need not declare it."""
    assert run("policy", "mine", "--into", tmp_path).exit_code == 0
    folder, built = tmp_path / "gymnast-mine", tmp_path / "built"
    assert sorted(path.name for path in _built(folder, built).rglob("*")) == ["__init__.py", "policy.py"]
    presets = folder / "gymnast_mine" / "presets"
    presets.mkdir()
    (presets / "mine.yaml").write_text("# Trains mine.\nkind: train\n")
    assert (_built(folder, built) / "presets" / "mine.yaml").read_text().startswith("# Trains mine.")


def _built(folder: Path, target: Path) -> Path:
    build = ["-c", "import setuptools; setuptools.setup()", "build_py", "--build-lib", str(target)]
    done = subprocess.run([sys.executable, *build], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target / "gymnast_mine"
