"""The section hooks.mlflow."""

from __future__ import annotations

from dataclasses import dataclass, field

from gymnast_core.config.ranges import ZeroOrMore
from gymnast_core.errors import ConfigError
from gymnast_trackers.installed import require
from gymnast_trackers.secrets import has_login


@dataclass(frozen=True)
class Config:
    """MLflow, `pip install 'gymnast[mlflow]'`: `hooks.mlflow.tracking_uri=http://server:5000`.

    Its login is MLflow's own business (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN).
    """

    tracking_uri: str = "sqlite:///mlflow.db"
    """A server, or a database of your own: the default is the file mlflow.db where the command runs, with mlartifacts
    beside it."""
    experiment: str = "gymnast"
    """Where the run goes."""
    name: str | None = None
    """What the run is called; None: as its folder."""
    tags: dict[str, str] = field(default_factory=dict)
    """Further tags of the run."""
    videos: ZeroOrMore = 8
    """Videos sent of a run, at most: of rollouts before it, after it and in between."""
    live: bool = False
    """Send a step when it is made, rather than once a snapshot stands behind it. A run that is killed and resumed makes
    the last steps again; of those the tracker keeps the first numbers."""

    def __post_init__(self) -> None:
        require("mlflow", "mlflow", "mlflow")
        if has_login(self.tracking_uri):
            raise ConfigError(
                "hooks.mlflow.tracking_uri holds a login, or a query (?…) that may be one, and configs are written to "
                "files. Leave it out, and set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment."
            )
