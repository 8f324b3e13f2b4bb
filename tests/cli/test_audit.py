"""`wfvae audit` and `wfvae convert-cache`, as users run them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.audit.make import write_source
from tests.cli.program import assert_refused, wfvae
from tests.models import checkpoints
from wfvae_cli.latents.file import LatentFile

USAGE, INPUT, OUTPUT, PARTIAL = 2, 3, 5, 7
OPTIONS = ("--size", "48x32", "--frames", "9")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index in range(2):
        write_source(folder / f"{index}.mkv", index)
    return folder


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write_wan(tmp_path_factory.mktemp("models") / "wan")


def encode(videos: Path, output: Path, *options: str | Path) -> Path:
    answer = wfvae("encode", videos, "-o", output, *OPTIONS, *options)
    assert answer.code == 0, answer
    return output


@pytest.mark.parametrize(
    "options",
    [
        ("--buckets", "32x32x9", "--windows", "all"),
        ("--buckets", "32x32x9"),
        ("--windows", "slide:8:11"),
    ],
)
def test_buckets_and_windows_are_no_mistakes(
    videos: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    answer = wfvae("encode", videos, "-o", tmp_path / "z", *options)
    assert answer.code == 0, answer
    answer = wfvae("audit", tmp_path / "z", "--source", videos, "--json")
    assert answer.code == 0, answer
    told = json.loads(answer.stdout)
    assert {each["kind"] for each in told["comparisons"]} == {"equal"}


def test_a_sound_cache(videos: Path, tmp_path: Path) -> None:
    cache = encode(videos, tmp_path / "z", "--normalize")
    sheets = tmp_path / "sheets"
    answer = wfvae("audit", cache, "--source", videos, "--decode", "1", sheets, "--json")
    assert answer.code == 0, answer
    told = json.loads(answer.stdout)
    assert (told["format"], told["clips"], told["sound"]) == ("wfvae", 2, True)
    assert [each["kind"] for each in told["comparisons"]] == ["equal", "equal"]
    assert [each["scale"] for each in told["comparisons"]] == ["normalised"] * 2
    (sheet,) = told["sheets"]
    assert Image.open(sheet).size == (6 * 48, 2 * 32)
    answer = wfvae("audit", cache)
    assert answer.code == 0
    assert "wfvae, 2 clips" in answer.stdout


def test_the_verdict_comes_first(videos: Path, tmp_path: Path, wan: Path) -> None:
    """And the one factor that is free, and fits best always, comes behind what it may mean."""
    cache = encode(videos, tmp_path / "z", "--model", wan, "--format", "simpletuner")
    name = hashlib.sha256(b"0").hexdigest()
    torch.save(torch.full((4, 3, 4, 6), float("inf")), cache / f"{name}.pt")
    text = wfvae("audit", cache, "--model", wan).stdout
    order = [
        "verdict      something is wrong with 1 of 2 clips",
        "latents are  ",
        "evidence     ",
        f"problem 1    {name[:12]}….pt: 0 NaN and 288 infinities",
        "what was done",
        "a second time",
        "the one factor that fits best",
        "channel",
    ]
    found = [text.index(words) for words in order]
    assert found == sorted(found)
    assert text.index(f" {name[:12]}….pt") < text.index("(1.mkv)"), "clips with problems come first"


def test_a_cache_whose_model_is_not_known_is_not_judged(tmp_path: Path) -> None:
    torch.save(torch.rand(16, 2, 3, 4), tmp_path / "a.pt")
    answer = wfvae("audit", tmp_path)
    assert "latents are  not judged" in answer.stdout
    assert "nothing says which model made the cache: give it with --model" in answer.stdout
    assert "hypothesis" not in answer.stdout


def test_published_figures_need_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wfvae_cli.models.load.describe_checkpoint", None)  # nothing is loaded
    for index in range(4):
        seed = torch.Generator().manual_seed(index)
        torch.save(torch.randn(16, 3, 8, 8, generator=seed), tmp_path / f"{index}.pt")
    answer = wfvae("audit", tmp_path, "--model", "wan-2.1")
    assert answer.code == 0, answer
    assert "latents are  normalised, as expected" in answer.stdout


def test_what_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    answer = wfvae("audit", tmp_path)
    assert_refused(answer, INPUT, "got no file that ends in .safetensors, .pt, .tar or .parquet")
    (tmp_path / "a.pt").write_bytes(b"no latents")
    answer = wfvae("audit", tmp_path)
    assert_refused(answer, INPUT, "got a file without; a.pt: cannot be read: not a file of")


def test_what_is_wrong_ends_with_7(videos: Path, tmp_path: Path, wan: Path) -> None:
    cache = encode(videos, tmp_path / "z", "--model", wan, "--format", "simpletuner")
    path = sorted(cache.glob("*.pt"))[0]
    latents = torch.load(path, weights_only=True)
    latents[0, 0, 0, 0] = float("nan")
    torch.save(latents, path)
    answer = wfvae("audit", cache, "--model", wan, "--json")
    assert answer.code == PARTIAL
    files = {each["name"]: each for each in json.loads(answer.stdout)["files"]}
    assert files[path.name]["problems"] == ["1 NaN and 0 infinities"]
    assert_refused(answer, PARTIAL, "something is wrong with 1 of 2 clips")


def test_a_model_is_needed_to_compare(videos: Path, tmp_path: Path) -> None:
    torch.save(torch.ones(16, 2, 3, 4), tmp_path / "a.pt")
    answer = wfvae("audit", tmp_path, "--source", videos)
    assert_refused(answer, USAGE, "give it with --model")


@pytest.mark.parametrize("form", ["musubi", "simpletuner", "energon"])
def test_conversions_give_what_encoding_gives(
    form: str, videos: Path, wan: Path, tmp_path: Path
) -> None:
    raw = encode(videos, tmp_path / "raw", "--model", wan)
    direct = encode(videos, tmp_path / "direct", "--model", wan, "--format", form)
    # the header names the model's folder, whose config gives shift and scale
    answer = wfvae("convert-cache", raw, "-o", tmp_path / "made", "--format", form)
    assert answer.code == 0, answer
    back = tmp_path / "back"
    for path in (direct, tmp_path / "made"):
        told = wfvae("audit", path, "--model", wan, "--source", videos, "--json")
        assert told.code == 0, told
        comparisons = json.loads(told.stdout)["comparisons"]
        assert [(each["kind"], each["scale"]) for each in comparisons] == [
            ("equal", "normalised")
        ] * 2
    if form == "musubi":
        one, other = (sorted(p.glob("*_wan.safetensors")) for p in (direct, tmp_path / "made"))
        assert [path.name for path in one] == [path.name for path in other]
        for a, b in zip(one, other, strict=True):
            assert load_file(a).keys() == load_file(b).keys()
            assert all(torch.equal(load_file(a)[k], load_file(b)[k]) for k in load_file(a))
    answer = wfvae(
        "convert-cache", tmp_path / "made", "-o", back, "--format", "files", "--model", wan
    )
    assert answer.code == 0, answer
    with LatentFile(sorted(back.rglob("*.safetensors"))[0]) as file:
        assert file.shape == (4, 3, 4, 6)
    again = wfvae("convert-cache", raw, "-o", tmp_path / "made", "--format", form, "--json")
    assert json.loads(again.stdout)["current"] == 2


@pytest.mark.parametrize("form", ["musubi", "simpletuner", "ltx"])
@pytest.mark.parametrize("windows", ["slide:9:8", "middle:9"])
def test_windows_are_converted_one_by_one(
    form: str, windows: str, videos: Path, wan: Path, tmp_path: Path
) -> None:
    """From files and back, under the names that encoding gives."""
    model = wan if form != "ltx" else checkpoints.write_ltx2(tmp_path / "ltx")
    options = ("--size", "32x32", "--windows", windows, "--model", model, "--quiet")

    def names(folder: Path) -> set[str]:
        return {
            p.relative_to(folder).as_posix() for p in folder.rglob("*.*") if p.suffix != ".jsonl"
        }

    for output, more in (("raw", ()), ("direct", ("--format", form))):
        answer = wfvae("encode", videos, "-o", tmp_path / output, *options, *more)
        assert answer.code == 0, answer
    for source in ("raw", "direct"):
        made = tmp_path / f"made-of-{source}"
        answer = wfvae(
            "convert-cache", tmp_path / source, "-o", made, "--format", form, "-m", model
        )
        assert answer.code == 0, answer
        assert names(made) == names(tmp_path / "direct")
        answer = wfvae("audit", made, "--model", model, "--source", videos, "--json")
        assert {each["kind"] for each in json.loads(answer.stdout)["comparisons"]} == {"equal"}
        back = tmp_path / f"back-of-{source}"
        answer = wfvae("convert-cache", made, "-o", back, "--format", "files", "-m", model)
        assert answer.code == 0, answer
        assert len(names(back)) == len(names(tmp_path / "raw"))


def test_what_cannot_be_converted_is_refused(videos: Path, wan: Path, tmp_path: Path) -> None:
    sample = encode(videos, tmp_path / "sample", "--model", wan, "--posterior", "sample")
    answer = wfvae("convert-cache", sample, "-o", tmp_path / "a", "--format", "musubi")
    assert_refused(answer, USAGE, "this is a sample of it")
    (tmp_path / "_latent_cache").mkdir()
    save_file({"latent": torch.ones(4, 2, 3)}, tmp_path / "_latent_cache/a_x.safetensors")
    options = ("--format", "files", "--model", wan)
    answer = wfvae("convert-cache", tmp_path / "_latent_cache", "-o", tmp_path / "d", *options)
    assert_refused(answer, USAGE, "the seed of a sample")
    torch.save(torch.ones(4, 2, 3, 4), tmp_path / "a.pt")
    answer = wfvae("convert-cache", tmp_path / "a.pt", "-o", tmp_path / "b", "--format", "files")
    assert_refused(answer, USAGE, "give it with --model")
    tiny = encode(videos, tmp_path / "tiny")
    answer = wfvae("convert-cache", tiny, "-o", tmp_path / "c", "--format", "musubi")
    assert_refused(answer, USAGE, "family wfvae")
    assert not (tmp_path / "c").exists()
