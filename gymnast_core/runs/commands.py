"""Commands about a run folder, as a person types them. Apart from the folder itself, since that one needs torch."""

import shlex
from pathlib import Path


def resume_command(command: str, folder: Path | str) -> str:
    """What to type to go on with a run."""
    return f"gymnast {command} --resume {shlex.quote(str(folder))}"
