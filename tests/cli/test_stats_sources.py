"""`wfvae stats` of outputs in every format, and of a run that was killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.program import assert_refused, start, wait_for, wfvae
from tests.cli.reports import measure, report
from tests.models.tiny import write_checkpoint
from tests.parity.cases import case_config, case_weights


def write(videos: Path, output: Path, format: str, model: str | Path = "wfvae-tiny") -> Path:
    chosen = ("--include", "0*.mp4", "--threads", "1", "--model", model)
    answer = wfvae("encode", videos, *chosen, "--format", format, "-o", output)
    assert answer.code == 0, answer
    return output


def test_tar_shards_give_what_latent_files_give(tmp_path: Path, videos: Path) -> None:
    pytest.importorskip("webdataset", reason="the extra webdataset is not installed")
    files = write(videos, tmp_path / "files", "files")
    shards = write(videos, tmp_path / "shards", "webdataset")
    for options in ([], ["--limit", "4", "--sample-frames", "5"], ["--include", "more/*"]):
        expected = measure(tmp_path, files, *options, name="files.json")
        found = measure(tmp_path, shards, *options, "--overwrite", name="shards.json")
        del expected["run"]["sources"], found["run"]["sources"]
        assert found == expected
        (tmp_path / "files.json").unlink()
    (shards / "latents-000001-000000.tar").write_bytes(b"no shard")
    assert_refused(wfvae("stats", shards), 3, "latents-000001-000000.tar", "not a tar shard")


def test_caches_of_musubi_tuner_need_their_model(tmp_path: Path, videos: Path) -> None:
    config = {**case_config("mini-wan"), "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    wan = tmp_path / "wan"
    write_checkpoint(wan, case_weights("mini-wan"), config)
    files = write(videos, tmp_path / "files", "files", wan)
    caches = write(videos, tmp_path / "caches", "musubi", wan)
    expected = measure(tmp_path, files, name="files.json")
    found = measure(tmp_path, caches, "--model", str(wan), name="caches.json")
    assert (found["clips"], found["count"]) == (expected["clips"], expected["count"])
    assert found["model"] == expected["model"]
    scale = np.array(expected["latents_std"])
    error = (np.array(found["latents_mean"]) - expected["latents_mean"]) / scale
    assert np.abs(error).max() < 2e-3, "bfloat16 keeps 8 bits"
    np.testing.assert_allclose(found["latents_std"], scale, rtol=4e-3)
    assert found["kl"] is None
    assert_refused(wfvae("stats", caches), 3, "no clip", "name it with --model")


SLOW = """
import time
from wfvae_cli.media.reader import open_clip
from wfvae_cli.stats import draw

def slowly(*args, **kwargs):
    time.sleep(0.1)
    return open_clip(*args, **kwargs)

draw.open_clip = slowly
"""


def test_a_killed_run_goes_on(tmp_path: Path, videos: Path) -> None:
    rows = ({"path": str(videos / f"0{1 + i % 2}.mp4"), "id": f"{i}"} for i in range(24))
    listed = tmp_path / "many.jsonl"
    listed.write_text("\n".join(map(json.dumps, rows)))
    arguments = ("stats", listed, "--threads", "1", "-o")
    journal = tmp_path / "s.json.part"
    process = start(*arguments, tmp_path / "s.json", prepare=SLOW)
    wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= 4, process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "s.json").exists()
    kept = journal.read_bytes().count(b"\n")
    assert kept < 24
    assert wfvae(*arguments, tmp_path / "s.json").code == 0
    assert not journal.exists()
    assert wfvae(*arguments, tmp_path / "whole.json").code == 0
    assert (tmp_path / "s.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


CRASHING = """
import os, signal
from wfvae_cli.cli import main
from wfvae_cli.stats import draw
from wfvae_cli.media.reader import open_clip

def crashing(path, *args, **kwargs):
    if os.path.basename(path).startswith("07"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return open_clip(path, *args, **kwargs)

draw.open_clip = crashing
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are watched on Linux")
def test_a_clip_that_ends_the_process_is_left_out(tmp_path: Path, videos: Path) -> None:
    chosen = ("--include", "0*.mp4", "--threads", "1")
    command = ["stats", videos, *chosen, "-o", tmp_path / "s.json"]
    done = subprocess.run(
        [sys.executable, "-c", CRASHING, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 7, done
    values = report(tmp_path / "s.json")
    assert [failed["name"] for failed in values["failed"]] == ["07.mp4"]
    assert "SIGSEGV" in values["failed"][0]["reason"]
    expected = measure(tmp_path, videos, *chosen, "--exclude", "07.mp4", name="without.json")
    assert values["state"] == expected["state"]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["s.json", "without.json"]
