"""Downloading, against a server on this machine that speaks the Hub's protocol."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.models.tiny import tiny_state, write_checkpoint, write_shards
from wfvae_cli.models.checkpoint import locate, weights_sha256

Files = dict[str, bytes]


@dataclass
class Hub:
    """Repositories by name, each with its files by revision; what is asked of it is kept."""

    repos: dict[str, dict[str, Files]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    private: dict[str, str] = field(default_factory=dict)
    """Repository to the token that it wants."""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Method and path, and the Authorization header."""
    url: str = ""

    def downloads(self) -> set[str]:
        return {
            path.split("/", 5)[5]
            for path, _ in self.requests
            if path.startswith("GET") and "/resolve/" in path
        }


def commit(repo: str, revision: str) -> str:
    return hashlib.sha1(f"{repo}@{revision}".encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """The four calls that listing and downloading a repository make."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = self.headers["Authorization"]
        self.hub.requests.append((f"{self.command} {path}", token))
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if api else parts
        repo = f"{owner}/{name}"
        if repo not in self.hub.repos:
            return self.fail(401, "RepoNotFound" if token else None)
        if repo in self.hub.private and token != f"Bearer {self.hub.private[repo]}":
            return self.fail(401, None)
        if repo in self.hub.gated and not token:
            return self.fail(403, "GatedRepo")
        revision = unquote(rest[1]) if len(rest) > 1 else "main"
        commits = {commit(repo, each): each for each in self.hub.repos[repo]}
        revision = commits.get(revision, revision)
        files = self.hub.repos[repo].get(revision)
        if files is None:
            return self.fail(404, "RevisionNotFound")
        sha = commit(repo, revision)
        if not api:
            return self.send_file(files, "/".join(rest[2:]), sha)
        if rest[:1] == ["tree"]:
            return self.send_json([self.entry(path, data) for path, data in files.items()])
        return self.send_json(
            {"id": repo, "sha": sha, "siblings": [{"rfilename": path} for path in files]}
        )

    @staticmethod
    def entry(path: str, data: bytes) -> Mapping[str, object]:
        return {
            "type": "file",
            "path": path,
            "size": len(data),
            "oid": hashlib.sha1(data).hexdigest(),
        }

    def send_file(self, files: Files, path: str, sha: str) -> None:
        data = files.get(path)
        if data is None:
            return self.fail(404, "EntryNotFound")
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", sha)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)
        return None

    def send_json(self, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def fail(self, status: int, code: str | None) -> None:
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    content = Hub()
    handler = type("HubHandler", (Handler,), {"hub": content})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    content.url = f"http://127.0.0.1:{server.server_port}"
    yield content
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass(frozen=True)
class Outcome:
    folder: Path | None
    error: str


FETCH = """
import sys
from wfvae_cli.errors import WeightsError
from wfvae_cli.models.hub import fetch
from wfvae_cli.models.names import find_source
try:
    print(fetch(find_source(sys.argv[1])))
except WeightsError as error:
    sys.exit(f"WeightsError: {error}")
"""


def run(
    program: str, model: str, home: Path, url: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run in a process of its own: huggingface_hub reads its environment when imported."""
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.upper().startswith(("HF_", "HUGGING")) and "PROXY" not in key.upper()
    }
    return subprocess.run(
        [sys.executable, "-c", program, model],
        capture_output=True,
        text=True,
        check=False,
        env=clean
        | {
            "HF_HOME": str(home),
            "HF_ENDPOINT": url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        | env,
    )


def fetch(model: str, home: Path, url: str, **env: str) -> Outcome:
    done = run(FETCH, model, home, url, **env)
    if done.returncode == 0:
        return Outcome(Path(done.stdout.strip()), "")
    assert "WeightsError: " in done.stderr, done.stderr
    return Outcome(None, done.stderr.partition("WeightsError: ")[2])


def files_of(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Files:
    return files_of(write_checkpoint(tmp_path / "published", tiny_state()))


def test_only_config_and_weights_are_downloaded_then_cached(
    hub: Hub, checkpoint: Files, tmp_path: Path
) -> None:
    other = {"README.md": b"x", "last.ckpt": b"x", "other.safetensors": b"x", "t/config.json": b"x"}
    hub.repos["org/vae"] = {"main": checkpoint | other}
    first = fetch("org/vae", tmp_path / "home", hub.url)
    assert first.folder is not None, first.error
    assert files_of(first.folder) == checkpoint
    assert hub.downloads() == set(checkpoint)
    assert all(token is None for _, token in hub.requests)

    hub.requests.clear()
    assert fetch("org/vae", tmp_path / "home", hub.url) == first
    assert not hub.downloads(), "the second time nothing is downloaded"

    hub.requests.clear()
    assert fetch("org/vae", tmp_path / "home", hub.url, HF_HUB_OFFLINE="1") == first
    assert not hub.requests, "offline nothing is asked"


def test_the_cache_serves_when_nothing_answers(hub: Hub, checkpoint: Files, tmp_path: Path) -> None:
    hub.repos["org/vae"] = {"main": checkpoint}
    first = fetch("org/vae", tmp_path / "home", hub.url)
    assert first.folder is not None
    nobody = "http://127.0.0.1:9"
    assert fetch("org/vae", tmp_path / "home", nobody) == first
    outcome = fetch("org/other", tmp_path / "home", nobody)
    assert "cannot be had from the Hugging Face Hub" in outcome.error


def test_a_download_that_broke_off_is_not_used(hub: Hub, checkpoint: Files, tmp_path: Path) -> None:
    hub.repos["org/vae"] = {"main": checkpoint}
    first = fetch("org/vae", tmp_path / "home", hub.url)
    assert first.folder is not None
    (first.folder / "diffusion_pytorch_model.safetensors").unlink()
    outcome = fetch("org/vae", tmp_path / "home", hub.url, HF_HUB_OFFLINE="1")
    assert "not in the Hugging Face cache" in outcome.error
    assert fetch("org/vae", tmp_path / "home", hub.url) == first
    assert files_of(first.folder) == checkpoint


def test_offline_and_not_cached_says_so(hub: Hub, tmp_path: Path) -> None:
    outcome = fetch("org/vae", tmp_path / "home", hub.url, HF_HUB_OFFLINE="1")
    assert "no file or folder org/vae" in outcome.error
    assert "not in the Hugging Face cache while HF_HUB_OFFLINE is set" in outcome.error
    assert not hub.requests


def test_a_subfolder_of_a_revision_loads_into_a_model(hub: Hub, tmp_path: Path) -> None:
    old, new = (
        files_of(write_checkpoint(tmp_path / str(seed), tiny_state(seed))) for seed in (1, 2)
    )
    hub.repos["org/big"] = {
        revision: {f"vae/{name}": data for name, data in files.items()}
        | {"transformer.safetensors": b"x", "vae/deeper/model.safetensors": b"x"}
        for revision, files in (("v1", old), ("main", new))
    }
    for model, seed, offline in (
        ("org/big/vae", 2, "0"),
        ("org/big/vae@v1", 1, "0"),
        ("org/big/vae@v1", 1, "1"),
    ):
        outcome = fetch(model, tmp_path / "home", hub.url, HF_HUB_OFFLINE=offline)
        assert outcome.folder is not None, outcome.error
        assert files_of(outcome.folder) == (old, new)[seed - 1]
    program = (
        "import sys; from wfvae_cli.models.load import load_model;"
        "model = load_model(sys.argv[1], device='cpu'); print(model.name, model.sha256)"
    )
    done = run(program, "org/big/vae@v1", tmp_path / "home", hub.url)
    weights = locate(tmp_path / "1").weights
    assert done.stdout.split() == ["org/big/vae@v1", weights_sha256(weights)], done.stderr
    assert hub.downloads() == {"vae/config.json", "vae/diffusion_pytorch_model.safetensors"}


def test_shards_are_downloaded_with_their_index(hub: Hub, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "published", tiny_state())
    published = files_of(tmp_path / "published")
    hub.repos["org/vae"] = {"main": published | {"unrelated.bin": b"x"}}
    outcome = fetch("org/vae", tmp_path / "home", hub.url)
    assert outcome.folder is not None, outcome.error
    assert files_of(outcome.folder) == published
    assert weights_sha256(locate(outcome.folder).weights) == weights_sha256(shards)


def test_the_token_is_sent_where_there_is_one(hub: Hub, checkpoint: Files, tmp_path: Path) -> None:
    hub.repos["org/secret"] = {"main": checkpoint}
    hub.private["org/secret"] = "hf_abc"
    denied = fetch("org/secret", tmp_path / "home", hub.url)
    assert "no repository org/secret on the Hugging Face Hub that you may read" in denied.error
    assert "HF_TOKEN" in denied.error
    hub.requests.clear()
    allowed = fetch("org/secret", tmp_path / "home", hub.url, HF_TOKEN="hf_abc")
    assert allowed.folder is not None, allowed.error
    assert {token for _, token in hub.requests} == {"Bearer hf_abc"}


def test_a_gated_repository_says_to_accept_its_licence(
    hub: Hub, checkpoint: Files, tmp_path: Path
) -> None:
    hub.repos["org/gated"] = {"main": checkpoint}
    hub.gated.add("org/gated")
    outcome = fetch("org/gated", tmp_path / "home", hub.url)
    assert "is gated: accept its licence" in outcome.error


def test_an_absent_repository_or_revision_is_named(
    hub: Hub, checkpoint: Files, tmp_path: Path
) -> None:
    hub.repos["org/vae"] = {"main": checkpoint}
    absent = fetch("org/absent", tmp_path / "home", hub.url, HF_TOKEN="hf_abc")
    assert "no file or folder org/absent, and there is no repository" in absent.error
    revision = fetch("org/vae@v9", tmp_path / "home", hub.url)
    assert "org/vae has no revision v9" in revision.error


def test_a_repository_of_pickles_or_without_weights_says_what_to_do(
    hub: Hub, checkpoint: Files, tmp_path: Path
) -> None:
    hub.repos["org/pickled"] = {"main": {"vae/merged.ckpt": b"x", "vae/config.json": b"{}"}}
    pickled = fetch("org/pickled/vae", tmp_path / "home", hub.url)
    assert "only merged.ckpt: pickles are not executed" in pickled.error
    assert "wfvae convert" in pickled.error
    elsewhere = fetch("org/pickled", tmp_path / "home", hub.url)
    assert "hold a config.json: org/pickled/vae" in elsewhere.error
    assert not hub.downloads()
