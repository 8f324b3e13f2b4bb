"""How a run on Ray ends when it is told to, and when the cluster is lost."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.program import start
from tests.dataset.clips import write_clip
from wfvae_cli.dataset.ray_engine import RayEngine
from wfvae_cli.errors import DeviceError

pytest.importorskip("ray", reason="the extra ray is not installed")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run that has files left for minutes, and has written the first one."""
    clip = write_clip(tmp_path / "a.mp4", 42)
    rows = (json.dumps({"path": str(clip), "id": f"{i}"}) for i in range(9000))
    (tmp_path / "many.jsonl").write_text("\n".join(rows))
    with (tmp_path / "stderr").open("wb") as stderr:
        process = start(
        "encode", tmp_path / "many.jsonl", "-o", tmp_path / "out",
        "--engine", "ray", "--workers", "1", "--threads", "1",
        stderr=stderr.fileno(),
    )  # fmt: skip
    begin = time.monotonic()
    while not any((tmp_path / "out").glob("*.safetensors")):
        assert process.poll() is None and time.monotonic() - begin < 180
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    yield process
    for each in family:
        if each.is_running():
            each.kill()


@pytest.mark.slow
def test_sigterm_ends_with_its_own_code(running: subprocess.Popen[bytes], tmp_path: Path) -> None:
    running.send_signal(signal.SIGTERM)
    running.wait(60)
    said = (tmp_path / "stderr").read_text()
    assert running.returncode == 128 + signal.SIGTERM, said
    assert "error: terminated" in said
    for trace in ("Traceback", "SIGTERM received", "***"):
        assert trace not in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_lost_cluster_ends_the_run(
    running: subprocess.Popen[bytes], tmp_path: Path, name: str
) -> None:
    (victim,) = [
        each for each in psutil.Process(running.pid).children(recursive=True) if each.name() == name
    ]
    victim.kill()
    running.wait(45)
    said = (tmp_path / "stderr").read_text()
    assert running.returncode == 6, said
    assert "the Ray cluster is lost" in said


class Nodes:
    """Ray as far as it is asked whether this machine's node is alive."""

    def __init__(self, *, is_alive: bool | None) -> None:
        self.is_alive, self.asked = is_alive, threading.Event()

    def get_runtime_context(self) -> Nodes:
        return self

    def get_node_id(self) -> str:
        return "a"

    def nodes(self) -> list[dict[str, Any]]:
        self.asked.set()
        if self.is_alive is None:
            time.sleep(60)
        return [{"NodeID": "b", "Alive": True}, {"NodeID": "a", "Alive": self.is_alive}]


@pytest.mark.parametrize(("is_alive", "silence"), [(True, 0), (False, 0), (None, 21)])
def test_a_dead_or_silent_node_is_noticed(
    is_alive: bool | None, silence: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wfvae_cli.dataset.ray_engine._POLL", 0.01)
    engine = RayEngine()
    engine._ray = nodes = Nodes(is_alive=is_alive)
    engine._last_seen = time.monotonic() - silence
    threading.Thread(target=engine._watch, daemon=True).start()
    assert nodes.asked.wait(10)
    while is_alive is False and engine._last_seen != -math.inf:
        time.sleep(0.01)
    if is_alive:
        assert list(engine._settle_next()) == []
    else:
        with pytest.raises(DeviceError, match="the Ray cluster is lost"):
            list(engine._settle_next())
    engine._closed.set()
