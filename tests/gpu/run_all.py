"""Run and measure everything that needs a GPU, in one go: see the README beside this file."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LARGE = ("wfvae-l-16ch", "wan2.1-vae", "wan2.2-vae")
SMALL = ("mini-wfvae-trilinear", "mini-wan", "mini-wan22")


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    device: str
    cases: tuple[str, ...]
    clips: tuple[tuple[str, int], ...]
    """Sizes and frames."""
    compiled: int
    """Frames of the clip that is compiled: each kind of chunk costs a CPU minutes of g++."""
    runs: int


FULL = Scale("cuda", LARGE, (("512x512", 65), ("1920x1080", 33)), compiled=65, runs=3)
TINY = Scale("cpu", SMALL, (("32x32", 9),), compiled=1, runs=1)


@dataclass(frozen=True)
class Step:
    """A command whose output goes into a file of its own."""

    name: str
    command: tuple[str, ...]


def steps(scale: Scale, models: Path, out: Path) -> Iterator[Step]:
    """Give what to run, the most important first."""
    yield Step("tests", ("pytest", "-n", "0", "-q", "-rs", "tests/gpu"))
    parts = ("tests.gpu.parts",)
    cases = [case for case in scale.cases if (ROOT / f"tests/parity/{case}.json").exists()]
    for case in cases:
        yield Step(f"weights-{case}", (*parts, "weights", case, str(models / case)))
    for size, frames in scale.clips:
        for case in cases:
            for dtype in ("bfloat16", "auto"):  # auto encodes in TF32
                command = _bench(models / case, scale, size, frames)
                yield Step(f"bench-{case}-{size}x{frames}-{dtype}", (*command, "--dtype", dtype))
    size, frames = scale.clips[0]
    yield Step("kernels", (*parts, "kernels", scale.device, "--tiny" * (scale is TINY) or "--full"))
    command = _bench(models / cases[0], scale, size, scale.compiled)
    yield Step("compiled", (*command, "--compare", "compile=on"))
    for half in ("encode", "decode"):
        trace = out / f"profile-{half}.trace.json"
        options = (str(models / cases[0]), scale.device, size, str(frames), half, str(trace))
        yield Step(f"profile-{half}", (*parts, "profile", *options))


def _bench(model: Path, scale: Scale, size: str, frames: int) -> tuple[str, ...]:
    clip = ("--size", size, "--frames", str(frames), "--runs", str(scale.runs))
    return ("wfvae_cli", "bench", "--json", "--model", str(model), "--device", scale.device, *clip)


def run(step: Step, out: Path, seconds: float) -> str:
    """Run a step, for so long at most; say how it ended."""
    begin = time.monotonic()
    with (out / f"{step.name}.txt").open("w") as file:
        try:
            code: object = subprocess.run(
                [sys.executable, "-m", *step.command],
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = "out of time"
    return f"{step.name}: {code}, {time.monotonic() - begin:.0f} s"


def main() -> int:
    """Run all steps that there is time for; the exit code is that of the worst."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--tiny", action="store_true", help="small models on the CPU")
    options = parser.parse_args()
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    end, failed = time.monotonic() + 60 * options.minutes, False
    with (out / "summary.txt").open("w") as summary:
        for step in steps(TINY if options.tiny else FULL, out / "models", out):
            left = end - time.monotonic()
            line = run(step, out, left) if left > 1 else f"{step.name}: not run, no time left"
            failed |= ": 0, " not in line
            summary.write(line + "\n")
            summary.flush()
            sys.stderr.write(line + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
