"""Kill a run with SIGKILL at random moments, restart it, and compare with one that ran through.

    python -m tests.dataset.kill_and_resume --clips 200 --kills 20

makes a dataset of clips and broken files below a temporary folder. `--add DIR` adds real clips.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.dataset.broken import lying_frames, make_broken, without_rate
from tests.dataset.clips import write_clip, write_image

_SOME_FAILED = 7


@dataclass(frozen=True)
class Verdict:
    """How the run that was killed compares with the one that was not."""

    outputs: int
    kills: int
    kills_in_work: int
    differences: tuple[str, ...]


def make_dataset(folder: Path, clips: int) -> None:
    """Clips of a few shapes and lengths, images, and every kind of broken file."""
    for i in range(clips):
        part = folder / f"part{i % 7}"
        if i % 4 == 3:
            write_image(part / f"{i:04d}.png", 24 + 8 * (i % 3), 16, seed=i)
        else:
            frames, width = (1, 5, 9, 17, 42)[i % 5], 32 + 8 * (i % 2)
            write_clip(part / f"{i:04d}.mp4", frames, width, seed=i)
    make_broken(folder / "broken")
    (folder / "odd").mkdir()
    lying_frames(folder / "odd" / "lying.mp4")
    without_rate(folder / "odd" / "without-rate.y4m")


def command(source: Path, output: Path, *options: str) -> list[str]:
    """What a user types."""
    program = [sys.executable, "-c", "from wfvae_cli.cli import main; main()", "encode"]
    return [*program, str(source), "-o", str(output), "--quiet", "--threads", "1", *options]


def compare_after_kills(
    source: Path, folder: Path, kills: int, seed: int = 0, options: Sequence[str] = ()
) -> Verdict:
    """Run once without and once with kills.

    Args:
        source: the dataset.
        folder: where the two output folders go.
        kills: how many; each comes at a random moment of a run that was restarted.
        seed: of the moments.
        options: of `encode`.
    """
    choose = random.Random(seed)
    whole, killed = folder / "whole", folder / "killed"
    subprocess.run(command(source, whole, *options), check=False, capture_output=True)
    total, progress = len(_outputs(whole)), 0
    for _ in range(kills):
        before = _count(killed)
        if total - before < total // 3:  # so that every kill finds work under way
            for path in choose.sample(sorted(_outputs(killed)), total // 2):
                (killed / path).unlink()
            before = _count(killed)
        with subprocess.Popen(
            command(source, killed, *options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            wanted = before + choose.randint(0, max(1, total - before - 1))
            while process.poll() is None and _count(killed) < wanted:
                time.sleep(0.002)
            time.sleep(choose.uniform(0, 0.1))  # into the next clips
            process.kill()
        _check_manifest(killed)
        progress += _count(killed) > before
    ended = subprocess.run(command(source, killed, *options), check=False, capture_output=True)
    differences = list(_differences(whole, killed))
    if ended.returncode not in (0, _SOME_FAILED):
        differences.append(f"the last run ended with {ended.returncode}: {ended.stderr.decode()}")
    return Verdict(len(_outputs(whole)), kills, progress, tuple(differences))


def _outputs(folder: Path) -> dict[str, bytes]:
    """Everything below a folder but manifests, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".wfvae-work" not in path.parts and path.suffix != ".jsonl"
    }


def _count(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*") if path.suffix in (".safetensors", ".tar", ".pt"))


def _check_manifest(folder: Path) -> None:
    """Every line must be readable at any moment."""
    path = folder / "manifest.jsonl"
    if path.exists():
        for line in path.read_text().splitlines():
            json.loads(line)


def _states(folder: Path) -> dict[str, tuple[str, str | None]]:
    last = {}
    for line in (folder / "manifest.jsonl").read_text().splitlines():
        values = json.loads(line)
        last[values["item"]] = (values["status"], values["output"])
    return last


def _differences(whole: Path, killed: Path) -> list[str]:
    expected, found = _outputs(whole), _outputs(killed)
    told = [f"missing: {name}" for name in expected.keys() - found.keys()]
    told += [f"too much: {name}" for name in found.keys() - expected.keys()]
    told += [f"other bytes: {n}" for n in expected.keys() & found.keys() if expected[n] != found[n]]
    if _states(whole) != _states(killed):
        told.append("the manifests tell of other outcomes")
    told += [f"left behind: {path}" for path in killed.rglob(".wfvae-work")]
    return told


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", type=Path, help="a folder of real clips")
    parser.add_argument("options", nargs="*", help="of wfvae encode, after --")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_dataset(folder / "in", asked.clips)
        if asked.add is not None:
            shutil.copytree(asked.add, folder / "in" / "real")
        verdict = compare_after_kills(folder / "in", folder, asked.kills, asked.seed, asked.options)
    sys.stdout.write(f"{verdict}\n")
    sys.exit(bool(verdict.differences))


if __name__ == "__main__":
    main()
