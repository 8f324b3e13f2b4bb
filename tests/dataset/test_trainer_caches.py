"""The caches of trainers, against the names, keys, shapes, dtypes and values that they read."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.cli.program import assert_refused, wfvae
from tests.dataset.clips import write_clip, write_image
from tests.models import checkpoints
from wfvae_cli.latents.file import LatentFile

USAGE, INPUT, PARTIAL = 2, 3, 7


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "wan": checkpoints.write_wan(folder / "wan"),
        "qwen": checkpoints.write_wan(folder / "qwen", "AutoencoderKLQwenImage"),
        "hunyuan": checkpoints.write_hunyuan15(folder / "hunyuan"),
        "ltx": checkpoints.write_ltx2(folder / "ltx"),
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip whose name has a dot, one in a folder, and an image."""
    folder = tmp_path_factory.mktemp("source")
    write_clip(folder / "my.clip.mp4", 9, 64, 48)
    write_clip(folder / "deep" / "b.mkv", 5, 48, 48, seed=1)
    write_image(folder / "still.png", 64, 48)
    return folder


def encode(source: Path, output: Path, model: Path, form: str, *more: str) -> None:
    options: tuple[str | Path, ...] = ("--model", model, "--format", form, "--size", "32x32", *more)
    answer = wfvae("encode", source, "-o", output, *options)
    assert answer.code == 0, answer


def mean_of(clip: Path, model: Path, tmp_path: Path, *more: str) -> Tensor:
    """The posterior's mean of a clip alone."""
    target = tmp_path / "alone.safetensors"
    options: tuple[str | Path, ...] = ("--model", model, "--size", "32x32", "--overwrite", *more)
    assert wfvae("encode", clip, "-o", target, *options).code == 0
    with LatentFile(target) as file:
        return file.read()


def load(path: Path | bytes) -> Any:
    """What a trainer loads: tensors, numbers and strings only."""
    source = io.BytesIO(path) if isinstance(path, bytes) else path
    return torch.load(source, map_location="cpu", weights_only=True)


def test_ltx_files_are_what_its_dataset_loads(
    source: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    encode(source, tmp_path / "out", models["ltx"], "ltx")
    found = sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.pt"))
    names = ["deep/b.pt", "my.clip.pt", "still.pt"]
    assert [str(path) for path in found] == [f".precomputed/latents/{name}" for name in names]
    value = load(tmp_path / "out/.precomputed/latents/my.clip.pt")
    assert list(value) == ["latents", "num_frames", "height", "width", "fps"]
    mean = mean_of(source / "my.clip.mp4", models["ltx"], tmp_path, "--normalize")
    assert torch.equal(value["latents"], mean.bfloat16())
    assert value["latents"].is_contiguous()
    assert list(value["latents"].shape)[1:] == [value[k] for k in ("num_frames", "height", "width")]
    assert (value["fps"], type(value["fps"]), type(value["width"])) == (8.0, float, int)
    assert load(tmp_path / "out/.precomputed/latents/still.pt")["fps"] == 1.0


def test_simpletuner_files_are_what_its_cache_looks_for(
    source: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    encode(source, tmp_path / "out", models["wan"], "simpletuner")
    names = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("my.clip", "still", "b")}
    latents = load(tmp_path / "out" / f"{names['my.clip']}.pt")
    mean = mean_of(source / "my.clip.mp4", models["wan"], tmp_path, "--normalize")
    assert torch.equal(latents, mean.bfloat16())
    assert load(tmp_path / "out" / f"{names['still']}.pt").shape == (4, 1, 4, 4)
    assert (tmp_path / "out/deep" / f"{names['b']}.pt").exists()


def test_energon_shards_hold_pth_and_json(
    source: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("webdataset", reason="the extra webdataset is not installed")
    encode(source, tmp_path / "out", models["wan"], "energon")
    with tarfile.open(tmp_path / "out/latents-000000-000.tar") as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    key = "my%2Eclip%2Emp4"
    assert sorted(name for name in members if name.startswith(key)) == [f"{key}.json", f"{key}.pth"]
    latents = load(members[f"{key}.pth"])
    mean = mean_of(source / "my.clip.mp4", models["wan"], tmp_path, "--normalize")
    assert torch.equal(latents, mean.bfloat16())
    fields = json.loads(members[f"{key}.json"])
    assert "caption" not in fields
    assert (fields["item"], fields["processed_frames"]) == ("my.clip.mp4", 9)
    assert (fields["processed_height"], fields["processed_width"]) == (32, 32)


def test_energon_shards_hold_captions_and_windows(models: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("webdataset", reason="the extra webdataset is not installed")
    write_clip(tmp_path / "in/a.mp4", 14, 32, 32)
    (tmp_path / "in/a.json").write_text('{"caption": "a “caption”", "score": 3}')
    encode(tmp_path / "in", tmp_path / "out", models["wan"], "energon", "--windows", "slide:9:5")
    with tarfile.open(tmp_path / "out/latents-000000-000.tar") as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    keys = ["a%2Emp4_00000-009", "a%2Emp4_00005-009"]
    assert sorted(members) == [f"{key}.{kind}" for key in keys for kind in ("json", "pth", "txt")]
    for key in keys:
        assert members[f"{key}.txt"].decode() == "a “caption”"
        fields = json.loads(members[f"{key}.json"])
        assert (fields["caption"], fields["columns"]) == ("a “caption”", {"score": 3})


def test_energon_shards_are_continued(
    source: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("webdataset", reason="the extra webdataset is not installed")
    encode(source, tmp_path / "out", models["wan"], "energon")
    shard = tmp_path / "out/latents-000000-000.tar"
    before = shard.read_bytes()
    encode(source, tmp_path / "out", models["wan"], "energon")
    assert shard.read_bytes() == before
    options = ("--model", models["wan"], "--format", "energon", "--size", "32x32", "--dry-run")
    answer = wfvae("encode", source, "-o", tmp_path / "out", *options)
    assert answer.code == 0, answer
    assert "would encode 0 of" in answer.stderr + answer.stdout


@pytest.mark.parametrize(
    ("form", "model", "folder"),
    [("ltx", "ltx", ".precomputed/latents/"), ("simpletuner", "wan", "")],
)
def test_windows_have_files_of_their_own(
    form: str, model: str, folder: str, source: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    def names(output: str, windows: str) -> set[str]:
        options = ("--windows", windows, "--verify")
        for _ in range(2):
            encode(source, tmp_path / output, models[model], form, *options)
        found = tmp_path.joinpath(output, folder).rglob("*.pt")
        return {path.relative_to(tmp_path / output / folder).as_posix() for path in found}

    def named(*stems: str) -> set[str]:
        paths = map(PurePosixPath, stems)
        if form == "ltx":
            return {f"{path}.pt" for path in paths}
        return {
            str(p.with_name(hashlib.sha256(p.name.encode()).hexdigest() + ".pt")) for p in paths
        }

    # The only window of a clip has the name by which the trainer looks for the clip.
    assert names("one", "middle:5") == named("my.clip", "deep/b")
    several = named("my.clip_00000-005", "my.clip_00002-005", "my.clip_00004-005")
    assert names("several", "slide:5:2") == several | named("deep/b_00000-005")
    (name,) = named("my.clip_00002-005")
    (middle,) = named("my.clip")
    latents = load(tmp_path / "several" / folder / name)
    same = load(tmp_path / "one" / folder / middle)
    if form == "ltx":
        latents, same = latents["latents"], same["latents"]
    assert torch.equal(latents, same)


@pytest.mark.parametrize(("form", "model"), [("ltx", "ltx"), ("simpletuner", "wan")])
def test_the_only_window_is_replaced_by_another_when_asked(
    form: str, model: str, source: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    encode(source, tmp_path / "out", models[model], form, "--windows", "head:5")
    manifest = tmp_path / "out/manifest.jsonl"
    before = {path: path.read_bytes() for path in _outputs(tmp_path / "out")}
    for is_known in (True, False):
        if not is_known:
            manifest.unlink()
        answer = wfvae(
            "encode", source, "-o", tmp_path / "out", "--model", models[model], "--format", form,
            "--size", "32x32", "--windows", "middle:5",
        )  # fmt: skip
        assert_refused(answer, 5, "windows: head:5, now middle:5")
        answer = wfvae(
            "encode", source, "-o", tmp_path / "out", "--model", models[model], "--format", form,
            "--size", "32x32",
        )  # fmt: skip
        assert_refused(answer, 5, "windows: head:5, now unset")
    encode(source, tmp_path / "out", models[model], form, "--windows", "head:5")
    assert {path: path.read_bytes() for path in _outputs(tmp_path / "out")} == before
    assert '"windows": [{' in manifest.read_text()
    encode(source, tmp_path / "out", models[model], form, "--windows", "middle:5", "--overwrite")
    assert {path.read_bytes() for path in before} != set(before.values())


@pytest.mark.parametrize(("form", "model"), [("ltx", "ltx"), ("simpletuner", "wan")])
def test_verify_makes_damaged_files_again(
    form: str, model: str, source: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    encode(source, tmp_path / "out", models[model], form)
    damaged, *others = _outputs(tmp_path / "out")
    sound = damaged.read_bytes()
    with zipfile.ZipFile(damaged) as archive:
        (record,) = (each for each in archive.infolist() if each.filename.endswith("data/0"))
    at = sound.index(b"data/0", record.header_offset) + 200  # in the tensor
    damaged.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
    times = {path: path.stat().st_mtime_ns for path in others}
    encode(source, tmp_path / "out", models[model], form, "--verify")
    assert damaged.read_bytes() == sound
    assert {path: path.stat().st_mtime_ns for path in others} == times


@pytest.mark.parametrize(
    ("model", "arch", "full", "normalised"),
    [
        ("wan", "wan", "wan", True),
        ("qwen", "qi", "qwen_image", True),
        ("hunyuan", "hv15", "hunyuan_video_1_5", False),
    ],
)
def test_musubi_files_of_each_architecture(
    model: str,
    arch: str,
    full: str,
    normalised: bool,
    source: Path,
    models: dict[str, Path],
    tmp_path: Path,
) -> None:
    from safetensors import safe_open

    encode(source, tmp_path / "out", models[model], "musubi")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.safetensors")) == [
        f"b_00000-005_0048x0048_{arch}.safetensors",
        f"my.clip_00000-009_0064x0048_{arch}.safetensors",
        f"still_0064x0048_{arch}.safetensors",
    ]
    path = tmp_path / "out" / f"my.clip_00000-009_0064x0048_{arch}.safetensors"
    with safe_open(path, "pt") as file:
        (key,) = file.keys()
        latents, strings = file.get_tensor(key), file.metadata()
    more = ("--normalize",) if normalised else ()
    mean = mean_of(source / "my.clip.mp4", models[model], tmp_path, *more)
    assert torch.equal(latents, mean.bfloat16())
    assert key == "latents_{}x{}x{}_bfloat16".format(*latents.shape[1:])
    assert (strings["architecture"], strings["width"], strings["height"]) == (full, "64", "48")


@pytest.mark.parametrize("form", ["musubi", "ltx", "simpletuner"])
def test_models_of_another_family_are_refused(form: str, source: Path, tmp_path: Path) -> None:
    answer = wfvae("encode", source, "-o", tmp_path / "out", "--format", form)
    assert_refused(answer, USAGE, "wfvae-tiny is of the family wfvae")
    assert not (tmp_path / "out").exists()


def test_raw_caches_are_not_normalised(
    source: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    options = ("--model", models["hunyuan"], "--format", "musubi", "--normalize")
    answer = wfvae("encode", source, "-o", tmp_path / "out", *options)
    assert_refused(answer, USAGE, "leave --normalize out")


@pytest.mark.parametrize(("form", "model"), [("ltx", "ltx"), ("musubi", "wan")])
def test_names_that_a_trainer_cannot_tell_apart_are_refused(
    form: str, model: str, models: dict[str, Path], tmp_path: Path
) -> None:
    write_clip(tmp_path / "in/a.mp4")
    write_clip(tmp_path / "in/a.mkv")
    options = ("--model", models[model], "--format", form)
    answer = wfvae("encode", tmp_path / "in", "-o", tmp_path / "out", *options)
    assert_refused(answer, INPUT, "would both be 'a'")


@pytest.mark.parametrize(
    ("form", "model"), [("ltx", "ltx"), ("simpletuner", "wan"), ("musubi", "wan")]
)
def test_it_resumes(
    form: str, model: str, source: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    encode(source, tmp_path / "out", models[model], form)
    before = {path: path.read_bytes() for path in _outputs(tmp_path / "out")}
    (tmp_path / "out/manifest.jsonl").unlink()
    first = min(before)
    first.unlink()
    encode(source, tmp_path / "out", models[model], form)
    lines = (tmp_path / "out/manifest.jsonl").read_text().splitlines()
    seconds = {json.loads(line)["output"]: json.loads(line)["seconds"] for line in lines}
    assert len(seconds) == 3
    assert {path: path.read_bytes() for path in _outputs(tmp_path / "out")} == before
    answer = wfvae(
        "encode", source, "-o", tmp_path / "out", "--model", models[model], "--format", form,
        "--size", "48x48",
    )  # fmt: skip
    assert_refused(answer, 5, "size: (32, 32), now (48, 48)")


def _outputs(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.suffix in (".pt", ".safetensors", ".tar")]
