"""What a config names as a checkpoint: a folder, a file, a repository of the hub, or a clear error."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_core.hub import args_of_saved, config_of_saved, locate

KEY = "world_model.args.checkpoint"


def test_what_lies_here_is_not_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("owner/name").mkdir(parents=True)
    Path("owner/file.pt").write_bytes(b"")
    assert locate("owner/name", files=[], key=KEY) == Path("owner/name")
    assert locate("owner/file.pt", files=[], key=KEY, takes_file=True) == Path("owner/file.pt")
    with pytest.raises(CheckpointError, match=rf"owner/file\.pt is a file; {KEY} is a folder"):
        locate("owner/file.pt", files=[], key=KEY)
    for name in ("owner/nmae", "./owner/name/too/deep", "nothing"):
        with pytest.raises(CheckpointError, match=f"There is no folder .*Set {KEY} to one that exists"):
            locate(name, files=[], key=KEY)


@pytest.mark.parametrize("takes_file", [False, True])
def test_a_revision_is_refused_beside_what_lies_here(takes_file: bool, tmp_path: Path) -> None:
    place = tmp_path / "file.pt" if takes_file else tmp_path
    if takes_file:
        place.write_bytes(b"")
    with pytest.raises(ConfigError, match=f"revision 'v2' is of a hub repository, and {KEY} is {place}"):
        locate(str(place), "v2", files=[], key=KEY, takes_file=takes_file)


@dataclass(frozen=True)
class Config:
    checkpoint: str | None = None
    revision: str | None = None
    steps: int = 1


def test_what_was_saved_has_no_revision_of_what_it_began_with() -> None:
    begun = {"checkpoint": "owner/name", "revision": "v2", "steps": 3}
    assert args_of_saved(begun, Path("runs/a")) == {"checkpoint": "runs/a", "steps": 3}
    assert config_of_saved(Config(**begun), Path("runs/a")) == Config("runs/a", None, 3)


class _Hub(BaseHTTPRequestHandler):
    """The requests of a hub download, answered from a directory."""

    directory: Path
    commit = "a" * 40

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        if path == "/api/models/someone/tiny/revision/v2":
            siblings = [{"rfilename": file.name} for file in sorted(self.directory.iterdir())]
            content = json.dumps({"id": "someone/tiny", "sha": self.commit, "siblings": siblings}).encode()
            self.send(content, body, "application/json")
        elif path == f"/api/models/someone/tiny/tree/{self.commit}":
            files = sorted(self.directory.iterdir())
            tree = [{"type": "file", "path": x.name, "size": x.stat().st_size, "oid": self.commit} for x in files]
            self.send(json.dumps(tree).encode(), body, "application/json")
        elif path.startswith(f"/someone/tiny/resolve/{self.commit}/"):
            self.send((self.directory / path.rsplit("/", 1)[1]).read_bytes(), body, "application/octet-stream")
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RevisionNotFound" if "someone/tiny" in path else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def send(self, content: bytes, body: bool, kind: str) -> None:
        self.send_response(200)
        headers = {"Content-Type": kind, "Content-Length": str(len(content)), "X-Repo-Commit": self.commit}
        headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_what_is_asked_for_is_downloaded(tmp_path: Path) -> None:
    """A process of its own, since the hub's address is read once; a server on loopback stands for the hub."""
    published = tmp_path / "published"
    published.mkdir()
    for name, content in (("config.json", "{}"), ("model.safetensors", "weights"), ("README.md", "not wanted")):
        (published / name).write_text(content)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Hub", (_Hub,), {"directory": published}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (
        "import sys\nfrom gymnast_core.errors import CheckpointError\nfrom gymnast_core.hub import locate\n"
        "for name, revision in (('someone/tiny', 'v2'), ('someone/tiny', 'v3'), ('someone/else', 'v2')):\n"
        "    try: print(locate(name, revision, files=['*.json', '*.safetensors'], key='policy.args.checkpoint'))\n"
        "    except CheckpointError as error: print(error)\n"
        "assert 'torch' not in sys.modules\n"
    )
    address = f"http://127.0.0.1:{server.server_address[1]}"
    settings = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"}
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | settings, capture_output=True, text=True, timeout=120
    )
    server.shutdown()
    assert done.returncode == 0, done.stderr
    directory, revision, repository = done.stdout.splitlines()
    assert {path.name for path in Path(directory).iterdir()} == {"config.json", "model.safetensors"}
    assert (Path(directory) / "model.safetensors").read_text() == "weights"
    assert "has no revision 'v3'" in revision
    assert "'someone/else' is no local folder" in repository and "does not exist, or is private" in repository
