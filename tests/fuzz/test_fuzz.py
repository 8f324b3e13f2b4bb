"""Damaged and hostile files: an exit code and a message, soon, in little memory, nothing left.

A few hundred of every kind together; thousands behind the marker `slow`. A failure names its kind
and seed: `pytest "tests/fuzz/test_fuzz.py::test_…[…]"` repeats it.
"""

from __future__ import annotations

import itertools
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
import torch
import typer

from tests.cli.program import wfvae
from tests.dataset.clips import write_image
from tests.fuzz.mutate import Mutation, changed_header, changed_json, changed_line, damaged
from tests.latents.samples import full_metadata, latents, write
from tests.models.tiny import CONFIG, tiny_state, write_checkpoint
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.run import run_reported
from wfvae_cli.dataset.items import find_inputs
from wfvae_cli.dataset.training import LatentDataset
from wfvae_cli.errors import LatentError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.models.load import load_model
from wfvae_cli.stats.draw import Draw, Source
from wfvae_cli.stats.measure import measure_latents

EXPECTED = {0, 3, 4, 5, 7}
GROWTH = 256 << 20
"""Bytes that the peak of this process's memory may grow by, for all files of a test."""


@dataclass
class Bench:
    """Whole files to damage, and a folder in which each try has its own."""

    root: Path
    tries: Iterator[int]

    def fresh(self) -> Path:
        folder = self.root / f"try{next(self.tries)}"
        folder.mkdir()
        return folder


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    root = tmp_path_factory.mktemp("fuzz")
    moments = full_metadata(posterior="moments", seed=None, normalization=None)
    pts = [0, 1, 2, 4, 5, 6, 7, 8, 9]
    write(root / "moments", latents(3), moments, logvar=latents(3, seed=1), pts=pts)
    write(root / "sample", latents(2), full_metadata())
    write_checkpoint(root / "model", tiny_state(), CONFIG)
    for index in range(3):
        write_image(root / "images" / f"{index}.png", seed=index)
    for name, options in (("files", ()), ("tars", ("--format", "webdataset"))):
        answer = wfvae("encode", root / "images", "-o", root / name, *options, "-m", root / "model")
        assert answer.code == 0, answer
    return Bench(root, itertools.count())


def handled(work: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> int:
    """Do what a command does, behind the handler of all commands; its exit code."""
    try:
        run_reported(work, Console())
        code = 0
    except typer.Exit as end:
        code = end.exit_code
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert code == 0 or "error: " in shown
    assert "\x1b" not in shown
    return code


def peak() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used << 10


@pytest.fixture(autouse=True)
def bounded_memory(bench: Bench) -> Iterator[None]:
    before = peak()
    yield
    assert peak() - before < GROWTH


def seeds(few: int, many: int) -> list[object]:
    """The seed of each of a few runs in the suite, and of many more that are slow."""
    slow = (pytest.param(seed, marks=pytest.mark.slow) for seed in range(few, many))
    return [*range(few), *slow]


ROUNDS = 25


def each(seed: int, data: bytes, *mutations: Mutation) -> Iterator[bytes]:
    """`ROUNDS` damaged forms of a file."""
    random = Random(seed)
    for index in range(ROUNDS):
        yield mutations[index % len(mutations)](data, random)


@pytest.mark.parametrize("seed", seeds(3, 100))
@pytest.mark.parametrize("name", ["moments", "sample"])
def test_latent_files(
    bench: Bench, capsys: pytest.CaptureFixture[str], name: str, seed: int
) -> None:
    path = bench.fresh() / "z.safetensors"

    def read() -> None:
        with LatentFile(path) as file:
            _ = file.pts, file.metadata.to_strings()
            for part in file.chunks(2):
                assert part.isfinite().all()
            stats = measure_latents(Source(str(path), "z"), Draw()).stats
            assert stats.clips or stats.failed

    for data in each(seed, (bench.root / name).read_bytes(), damaged, changed_header):
        path.write_bytes(data)
        assert handled(read, capsys) in (0, 3)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("seed", seeds(1, 40))
def test_commands_on_latent_files(bench: Bench, seed: int) -> None:
    folder = bench.fresh()
    source, target = folder / "z.safetensors", folder / "out.mp4"
    good = (bench.root / "moments").read_bytes()
    for data in itertools.islice(each(seed, good, changed_header), 12):
        source.write_bytes(data)
        for command in (
            ("info", source),
            ("decode", source, "-o", target, "-m", bench.root / "model", "--force"),
        ):
            answer = wfvae(*command)
            assert answer.code in EXPECTED, answer
            assert answer.code == 0 or "error: " in answer.stderr
            assert answer.code == 0 or not target.exists()
        target.unlink(missing_ok=True)
    assert [entry.name for entry in folder.iterdir()] == [source.name]


@pytest.mark.parametrize("seed", seeds(2, 60))
@pytest.mark.parametrize("name", ["diffusion_pytorch_model.safetensors", "config.json"])
def test_checkpoints(
    bench: Bench, capsys: pytest.CaptureFixture[str], name: str, seed: int
) -> None:
    folder = Path(shutil.copytree(bench.root / "model", bench.fresh() / "model"))
    change = changed_json if name == "config.json" else changed_header

    def load() -> None:
        load_model(str(folder), device="cpu")

    for data in each(seed, (folder / name).read_bytes(), change, damaged):
        (folder / name).write_bytes(data)
        assert handled(load, capsys) in (0, 4)
    assert len(list(folder.iterdir())) == 2


LISTS = {
    "list.txt": "0.png\n# a comment\n1.png\r\n2.png\n",
    "list.csv": 'path,start,duration,id,caption\n0.png,0,1,a,"two\nlines"\n1.png,,,b,\n',
    "list.jsonl": '{"path": "0.png", "start": 0.5, "id": "a"}\n{"path": "1.png", "duration": 1}\n',
}


@pytest.mark.parametrize("seed", seeds(2, 60))
@pytest.mark.parametrize("name", list(LISTS))
def test_lists_of_inputs(
    bench: Bench, capsys: pytest.CaptureFixture[str], name: str, seed: int
) -> None:
    path = bench.fresh() / name
    mutations = (damaged, changed_line) if name.endswith(".jsonl") else (damaged,)

    def find() -> None:
        for item in find_inputs([str(path)]):
            assert ".." not in Path(item.relative).parts
            assert not item.relative.startswith("/")
            item.path.encode(errors="surrogateescape")

    for data in each(seed, LISTS[name].encode(), *mutations):
        path.write_bytes(data)
        assert handled(find, capsys) in (0, 3)


@pytest.mark.parametrize("seed", seeds(1, 40))
@pytest.mark.parametrize("name", ["files/manifest.jsonl", "tars/latents-000000.json"])
def test_leftovers_of_runs(
    bench: Bench, capsys: pytest.CaptureFixture[str], name: str, seed: int
) -> None:
    """A run over damaged leftovers ends well, with the same outputs, and touches nothing else."""
    kind, file = name.split("/")
    options = ("--format", "webdataset") if kind == "tars" else ()
    change = changed_json if kind == "tars" else changed_line
    good = bench.root / kind
    for data in itertools.islice(each(seed, (good / file).read_bytes(), change, damaged), 6):
        folder = bench.fresh()
        victim = folder / "victim"
        victim.write_text("precious")
        out = Path(shutil.copytree(good, folder / "out"))
        (out / file).write_bytes(data)
        command = ("encode", bench.root / "images", "-o", out, *options, "-m", bench.root / "model")
        answer = wfvae(*command, "--overwrite")
        assert answer.code in (0, 5), answer
        assert victim.read_text() == "precious"
        assert sorted(path.name for path in folder.iterdir()) == ["out", "victim"]
        assert not list(out.rglob("*.part"))
        if answer.code == 0:
            try:
                assert len(LatentDataset(out)) == 3
            except LatentError as error:  # an index that names other clips than its shards hold
                assert name.startswith("tars/")
                assert "both hold" in str(error) or "not in it" in str(error)
        shutil.rmtree(folder)


@pytest.mark.parametrize("seed", seeds(2, 60))
def test_tar_shards(bench: Bench, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    out = Path(shutil.copytree(bench.root / "tars", bench.fresh() / "out"))
    shard, index = out / "latents-000000-000.tar", out / "latents-000000.json"
    good = index.read_bytes()
    random = Random(seed)

    def read() -> None:
        dataset = LatentDataset(out)
        assert len(dataset) == 3, "clips are lost without a word"
        for place in range(3):
            assert dataset[place]["latents"].dtype == torch.float32

    for data in each(seed, shard.read_bytes(), damaged):
        shard.write_bytes(data)
        assert handled(read, capsys) in (0, 3)
    shard.write_bytes((bench.root / "tars" / shard.name).read_bytes())
    for _ in range(ROUNDS):
        index.write_bytes(random.choice((damaged, changed_json))(good, random))
        assert handled(read, capsys) in (0, 3)
