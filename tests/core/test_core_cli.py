import json
import re

import pytest
from click.testing import CliRunner

from gymnast_core.cli import cli

FAKE_RUN = """
import sys, types
from pathlib import Path
calls = types.ModuleType("gymnast_core.training.run")
def train(config, *, resume):
    if config.seed == 130:
        raise KeyboardInterrupt
    if config.seed == 13:
        raise PermissionError(13, "Permission denied", str(Path.cwd() / "deep" / "x"))
    if config.seed == 28:
        raise OSError(28, "No space left on device", "/data/x")
    if config.seed == 2:
        raise FileNotFoundError(2, "No usable temporary directory found")
    return {"seed": config.seed, "resume": resume and str(resume), "output": Path("runs/x")}
calls.train = train
sys.modules["gymnast_core.training.run"] = calls
import gymnast_core.training
gymnast_core.training.run = calls
from gymnast_core.cli import main
main()
"""
LIST_HEAVY_IMPORTS = """
import sys, time
from gymnast_core.cli import main
try:
    main()
finally:
    print("heavy:", sorted({"torch", "lightning", "transformers"} & set(sys.modules)))
    print(time.process_time())
"""
PARTS = ["world_model=gymnasium", "policy=openvla-oft", "reward_model=random", "optimizer=grpo", "tasks=tabletop"]


@pytest.mark.parametrize("arguments", [["--help"], ["plugins"], ["presets"], ["--version"]])
def test_the_fast_commands_take_half_a_second_at_most_and_never_import_torch(outside, arguments):
    done = outside.run("-c", LIST_HEAVY_IMPORTS, *arguments)
    assert done.returncode == 0, done.stderr
    heavy, seconds = done.stdout.splitlines()[-2:]
    assert heavy == "heavy: []"
    # Processor time: the wall clock measures what else the machine does.
    assert float(seconds) < 0.5


def test_plugins_lists_the_defaults_and_marks_what_is_broken(outside):
    entry = "[gymnast.policies]\nshaky = cli_shaky:Shaky\nlost = cli_lost:Lost\n"
    entry += "[gymnast.hooks]\nhook = cli_hook\n"
    outside.add("shaky", entry, {"cli_shaky.py": "1 / 0", "cli_hook.py": "def gymnast_typo(): pass"})
    rows = {tuple(line.split("\t")[:2]): line for line in outside.gymnast("plugins").stdout.splitlines()}
    assert rows["world model", "worldgym"].split("\t")[2].startswith("gymnast 0")
    assert rows["policy", "shaky"].endswith("ok")
    assert rows["policy", "lost"].endswith("broken")
    assert rows["hooks", "hook"].endswith("broken")


def test_loading_the_plugins_shows_tracebacks(site_packages, fresh):
    site_packages.add("shaken", "[gymnast.policies]\nshaken = cli_shaken:X\n", {"cli_shaken.py": "1 / 0"})
    loaded = CliRunner().invoke(cli, ["plugins", "--load"])
    assert loaded.exit_code == 0
    assert "Traceback" in loaded.output
    assert "ZeroDivisionError" in loaded.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere"], "No preset 'nowhere'"),
        (["train"], "What to train?"),
        (["train", "a.yaml", "b.yaml"], "one preset or file, not a.yaml and b.yaml"),
        (["train", "--resume", "nowhere"], "nowhere is not a run folder"),
        (
            ["fit", "policy=openvla-oft", "episodes=lerobot", "episodes.args.path=x", "fitt.steps=1"],
            "Did you mean 'fit'?",
        ),
        (["check", "grppo"], "Did you mean 'grpo'?"),
    ],
)
def test_a_user_error_is_one_message_and_exit_code_2(outside, arguments, message):
    done = outside.gymnast(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def summary(output: str) -> dict[str, object]:
    """The JSON that a command's output begins with."""
    return json.JSONDecoder().raw_decode(output)[0]


def test_train_gets_the_config_and_the_run_to_resume(outside, tmp_path):
    first = outside.run("-c", FAKE_RUN, "train", *PARTS, "seed=7")
    assert summary(first.stdout) == {"seed": 7, "resume": None, "output": "runs/x"}, first.stderr
    run = tmp_path / "run"
    run.mkdir()
    parts = "\n".join(part.replace("=", ": ") for part in PARTS)
    (run / "config.yaml").write_text(f"kind: train\nseed: 5\n{parts}\n")
    resumed = outside.run("-c", FAKE_RUN, "train", "--resume", str(run))
    assert summary(resumed.stdout) == {"seed": 5, "resume": str(run), "output": "runs/x"}


def test_a_full_disk_is_one_message_wherever_it_shows(outside):
    done = outside.run("-c", FAKE_RUN, "train", *PARTS, "seed=28")
    assert (done.returncode, done.stderr.strip()) == (
        2,
        "Error: /data/x cannot be written: No space left on device. Make room, or write elsewhere.",
    )
    done = outside.run("-c", FAKE_RUN, "train", *PARTS, "seed=13")
    assert done.returncode == 2
    assert re.fullmatch(
        r"Error: (.*)/deep/x cannot be used: Permission denied. Let this user write \1, or choose another folder.\n",
        done.stderr,
    )
    # An error of the program's own stays one.
    done = outside.run("-c", FAKE_RUN, "train", *PARTS, "seed=2")
    assert done.returncode == 1 and "Traceback" in done.stderr
    nowhere = "import tempfile\ndef none(): raise FileNotFoundError\ntempfile.gettempdir = none\n"
    done = outside.run("-c", nowhere + FAKE_RUN, "train", *PARTS, "seed=2")
    assert done.returncode == 2 and "set TMPDIR" in done.stderr.replace("Set", "set") and "Traceback" not in done.stderr


def test_an_interrupt_ends_with_130_and_a_hint(outside):
    done = outside.run("-c", FAKE_RUN, "train", *PARTS, "seed=130")
    assert done.returncode == 130
    assert "--resume" in done.stderr


def test_a_broken_command_plugin_leaves_the_other_commands_alone(outside):
    entry = "[gymnast.commands]\nshaky = cli_command:shaky\n"
    outside.add("shaky-commands", entry, {"cli_command.py": "import no_such_dependency"})
    listed = outside.gymnast("--help")
    assert listed.returncode == 0, listed.stderr
    assert "shaky" in listed.stdout
    used = outside.gymnast("shaky", "--anything")
    assert used.returncode == 2
    assert "shaky-commands 1.2" in used.stderr
    assert "no_such_dependency" in used.stderr


def test_check_builds_a_plugin_and_verifies_its_contract():
    done = CliRunner().invoke(cli, ["check", "grpo", "group_size=4"])
    assert done.exit_code == 0, done.output
    assert "The optimizer 'grpo' keeps its contract." in done.output
