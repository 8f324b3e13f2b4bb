"""Caches of every program are recognised, and what does not fit in them is told."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.audit.make import Musubi
from tests.cli.program import assert_refused, wfvae
from tests.dataset.clips import write_clip
from wfvae_cli.audit.audit import KnownModel, audit_cache
from wfvae_cli.audit.cache import open_cache
from wfvae_cli.audit.entry import CacheEntry
from wfvae_cli.audit.hypotheses import judge_scale, known_normalization
from wfvae_cli.audit.measure import find_misfits, find_mixed_shapes, find_outliers, measure
from wfvae_cli.errors import InputError
from wfvae_cli.latents.normalization import Normalization

INPUT, PARTIAL = 3, 7


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def only(path: Path) -> CacheEntry:
    (entry,) = open_cache(path).entries
    return entry


def problems(path: Path, channels: int | None = None) -> tuple[str, ...]:
    return measure(only(path), channels).problems


def test_musubi_tuner(tmp_path: Path) -> None:
    path = Musubi(tmp_path).write("my_clip", random(16, 3, 5, 8), 9, 48)
    save_file({"t5": random(2, 3)}, tmp_path / "my_clip_wan_te.safetensors")
    entry = only(tmp_path)
    assert (entry.format, entry.stem, entry.position, entry.frames) == (
        "musubi-tuner", "my_clip", 48, 9,
    )  # fmt: skip
    assert (entry.content, entry.posterior, entry.family) == ("normalised", "mean", "wan")
    assert (entry.source_size, entry.dtype, problems(path, 16)) == ((64, 40), "bfloat16", ())
    assert entry.read is not None
    assert torch.equal(entry.read(), random(16, 3, 5, 8).bfloat16())


def test_musubi_names_that_do_not_fit(tmp_path: Path) -> None:
    (problem,) = problems(Musubi(tmp_path / "a").write("a", random(16, 3, 5, 8), 17))
    assert problem == "3 latent frames do not fit the 17 frames of the name"
    Musubi(tmp_path / "b").write("a", random(16, 3, 8, 5), 9)
    (problem,) = find_misfits(open_cache(tmp_path / "b").entries).values()
    assert problem == (
        "latents of 5x8 do not fit a source of 64x40: height and width are transposed"
    )
    Musubi(tmp_path / "c").write("a", random(16, 3, 5, 8), 9)
    other = Musubi(tmp_path / "c").write("b", random(16, 3, 4, 8), 9)
    mixed = find_mixed_shapes(open_cache(tmp_path / "c").entries)
    assert list(mixed) == [other.name]
    assert "cannot be in one batch" in mixed[other.name]


def test_clips_of_any_aspect_fit_the_only_bucket_and_the_nearest_of_several(
    tmp_path: Path,
) -> None:
    entries = [
        CacheEntry(
            name,
            tmp_path,
            "musubi-tuner",
            shape=(16, 3, height, width),
            read=lambda: random(16, 3, 8, 8),
            source_size=source,
        )
        for name, source, width, height in (
            ("tall", (64, 96), 8, 8),
            ("wide", (200, 100), 12, 8),
            ("square", (64, 64), 8, 8),
        )
    ]
    assert find_misfits(entries) == {}
    assert find_misfits(entries[:1]) == {}
    image = replace(entries[1], name="image", shape=(16, 1, 8, 8), frames=1)
    assert find_misfits([*entries, image]) == {}
    wrong = replace(entries[1], shape=(16, 3, 8, 8))
    (problem,) = find_misfits([wrong, replace(entries[1], name="other")]).values()
    assert problem.endswith("the cache has a nearer shape")


@pytest.mark.parametrize(
    ("axes", "words"), [((0, 1, 3, 2), "height and width"), ((1, 0, 2, 3), "channels and time")]
)
def test_our_own_with_axes_in_another_order(
    tmp_path: Path, axes: tuple[int, ...], words: str
) -> None:
    clip = write_clip(tmp_path / "a.mp4", 5, 32, 16)
    path = tmp_path / "cache" / "a.safetensors"
    path.parent.mkdir()
    assert wfvae("encode", clip, "-o", path).code == 0
    with safe_open(path, "pt") as file:
        metadata, latents = file.metadata(), file.get_tensor("latents")
    save_file({"latents": latents.permute(axes).contiguous()}, path, metadata)
    answer = wfvae("audit", path.parent, "--json")
    assert answer.code == 7, answer
    (found,) = json.loads(answer.stdout)["files"]
    assert f"{words} of the latents transposed" in found["problems"]


def test_ltx(tmp_path: Path) -> None:
    folder = tmp_path / ".precomputed/latents/deep"
    folder.mkdir(parents=True)
    good = {"latents": random(128, 2, 3, 4), "num_frames": 2, "height": 3, "width": 4, "fps": 24.0}
    torch.save(good, folder / "a.pt")
    conditions = tmp_path / ".precomputed/conditions"
    conditions.mkdir()
    torch.save({"prompt_embeds": random(2, 2)}, conditions / "a.pt")
    entry = only(tmp_path)
    assert (entry.format, entry.stem, entry.frame_rate) == ("LTX-2 trainer", "a", 24.0)
    assert measure(entry, 128).problems == ()
    torch.save({**good, "height": 96, "width": 128}, folder / "a.pt")
    assert "they count latents" in problems(tmp_path)[0]


def test_simpletuner_and_finetrainers(tmp_path: Path) -> None:
    name = hashlib.sha256(b"clip").hexdigest()
    torch.save(random(16, 2, 3, 4).half(), tmp_path / f"{name}.pt")
    entry = only(tmp_path)
    assert (entry.format, entry.stem_sha256, entry.dtype) == ("SimpleTuner", name, "float16")
    moments = {
        "latents": random(1, 8, 2, 3, 4),
        "latents_mean": random(4),
        "latents_std": random(4),
    }
    (tmp_path / "fine").mkdir()
    torch.save(moments, tmp_path / "fine/latents-0-12.pt")
    entry = only(tmp_path / "fine")
    assert (entry.format, entry.posterior, entry.content) == ("finetrainers", "moments", "raw")
    assert entry.grid == (4, 2, 3, 4)
    assert entry.read is not None
    assert torch.equal(entry.read(), moments["latents"][0, :4])


def test_ai_toolkit(tmp_path: Path) -> None:
    (tmp_path / "_latent_cache").mkdir()
    save_file({"latent": random(16, 3, 4)}, tmp_path / "_latent_cache/my_pic_A1b2.safetensors")
    entry = only(tmp_path)
    assert (entry.format, entry.stem, entry.posterior) == ("ai-toolkit", "my_pic", "sample")
    assert (entry.grid, measure(entry, 16).problems) == ((16, 1, 3, 4), ())


def test_fastvideo(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
    latents = [random(16, 2, 3, 4, seed=i).numpy() for i in range(3)]
    table = pa.table(
        {
            "id": ["a", "b", "c"],
            "vae_latent_bytes": [each.tobytes() for each in latents],
            "vae_latent_shape": [list(each.shape) for each in latents],
            "vae_latent_dtype": ["float32"] * 3,
            "file_name": ["a.mp4", "b.mp4", "c.mp4"],
            "num_frames": [2, 2, 7],
            "fps": [16.0, 16.0, 16.0],
        }
    )
    parquet.write_table(table, tmp_path / "data.parquet", compression="zstd", row_group_size=2)
    cache = open_cache(tmp_path)
    assert (cache.format, [entry.stem for entry in cache.entries]) == ("FastVideo", ["a", "b", "c"])
    for entry, expected in zip(cache.entries, latents, strict=True):
        assert entry.read is not None
        assert torch.equal(entry.read(), torch.from_numpy(expected))
    assert cache.entries[2].problems == ("num_frames is 7, the latents have 2 frames",)


def test_energon(tmp_path: Path) -> None:
    fields = {"video_path": "videos/a.mp4", "processed_frames": 5}
    with tarfile.open(tmp_path / "shard-000000.tar", "w") as tar:
        for name, data in {
            "000000.pth": _saved(random(16, 2, 3, 4)),
            "000000.json": json.dumps(fields).encode(),
            "000000.pickle": pickle.dumps([1]),
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    entry = only(tmp_path)
    assert (entry.format, entry.stem, entry.frames) == ("Energon", "a", 5)
    assert measure(entry, 16).problems == ()


def test_decode_and_stats_send_trainers_caches_to_convert_cache(tmp_path: Path) -> None:
    write_clip(tmp_path / "in" / "a.mp4")
    assert wfvae("encode", tmp_path / "in", "-o", tmp_path / "e", "--format", "energon").code == 0
    assert_refused(wfvae("stats", tmp_path / "e"), INPUT, "wfvae convert-cache FROM -o TO")
    Musubi(tmp_path / "musubi").write("a", random(16, 3, 5, 8), 9)
    for cache in ("e", "musubi"):
        answer = wfvae("decode", tmp_path / cache, "-o", tmp_path / "out")
        assert_refused(answer, INPUT, "wfvae convert-cache FROM -o TO")


@pytest.mark.parametrize("form", ["files", "webdataset", "energon"])
def test_our_own(tmp_path: Path, form: str) -> None:
    write_clip(tmp_path / "in/a.mp4", 9)
    answer = wfvae("encode", tmp_path / "in", "-o", tmp_path / "out", "--format", form)
    assert answer.code == 0, answer
    entry = only(tmp_path / "out")
    names = {"files": "wfvae", "webdataset": "wfvae tar shards", "energon": "Energon"}
    assert (entry.format, entry.stem, entry.frames) == (names[form], "a", 9)
    assert measure(entry, 16).problems == ()


class _Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("import pathlib; pathlib.Path('/tmp/executed').touch()",))


def test_nothing_is_executed(tmp_path: Path) -> None:
    torch.save({"latents": _Evil()}, tmp_path / "evil.pt")
    torch.save(random(4, 2, 3, 4), tmp_path / "good.pt")
    evil, good = open_cache(tmp_path).entries
    assert evil.problems == (
        "cannot be read: it holds more than tensors, numbers and strings, and is not unpickled "
        "(it calls for exec)",
    )
    assert good.problems == ()


def test_what_is_no_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(InputError, match="expected latents of wfvae, musubi-tuner"):
        open_cache(tmp_path)
    assert_refused(wfvae("audit", tmp_path / "none"), INPUT, "none")


def test_clips_with_nan_are_not_compared(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in" / "a.mp4")
    path = tmp_path / "cache" / "a.mp4.safetensors"
    path.parent.mkdir()
    assert wfvae("encode", clip, "-o", path).code == 0
    with safe_open(path, "pt") as file:
        metadata, latents = file.metadata(), file.get_tensor("latents")
    latents[0, 0] = float("nan")
    save_file({"latents": latents}, path, metadata)
    answer = wfvae("audit", path.parent, "--source", clip.parent, "--json")
    report = json.loads(answer.stdout)
    assert (answer.code, report["comparisons"]) == (7, [])
    assert report["files"][0]["problems"] == ["12 NaN and 0 infinities"]


def test_bad_numbers(tmp_path: Path) -> None:
    latents = random(4, 2, 3, 4)
    latents[1, 0, 0, :2] = torch.tensor([float("nan"), float("inf")])
    latents[2, 0, 0, 0] = 5000
    torch.save(latents, tmp_path / "a.pt")
    figures = measure(only(tmp_path), None)
    assert (figures.nan, figures.infinite, figures.largest) == (1, 1, 5000)
    assert figures.problems[0] == "1 NaN and 1 infinities"
    assert "loaders drop" in figures.problems[1]
    torch.save(torch.ones(4, 2, 3, 4), tmp_path / "a.pt")
    assert problems(tmp_path) == ("all values of each channel are equal",)
    torch.save(random(3, 16, 4, 4), tmp_path / "a.pt")
    assert "channels and time are transposed" in problems(tmp_path, 16)[0]
    assert problems(tmp_path, 48) == ("expected the model's 48 channels, got 3",)


def test_outliers(tmp_path: Path) -> None:
    for index in range(12):
        scale = 9.0 if index == 5 else 1.0
        torch.save(random(4, 2, 8, 8, seed=index) * scale, tmp_path / f"{index:02}.pt")
    figures = [measure(entry, None) for entry in open_cache(tmp_path).entries]
    assert list(find_outliers(figures)) == ["05.pt"]
    assert find_outliers(figures[:7]) == {}


def test_one_clip_does_not_hide_what_all_others_are(tmp_path: Path) -> None:
    for index in range(12):
        scale = 1e4 if index == 5 else 1.0
        torch.save(random(4, 2, 8, 8, seed=index) * scale, tmp_path / f"{index:02}.pt")
    model = KnownModel("wan", 4, Normalization((0.5, -1.0, 0.0, 2.0), (0.5, 2.0, 3.0, 0.4)))
    report = audit_cache(open_cache(tmp_path), model)
    assert report.figures is not None
    assert report.figures.clips == 11
    assert max(report.figures.std) < 1.2
    assert report.scale.verdict == "normalised"
    assert re.fullmatch(
        r"0\.\d\d away from normalised latents; the next, .*, is \d\.\d\d away",
        report.scale.evidence,
    )
    torch.save(torch.full((4, 2, 8, 8), float("nan")), tmp_path / "05.pt")
    report = audit_cache(open_cache(tmp_path), model)
    assert report.by_clip == {"05.pt": ("512 NaN and 0 infinities",)}
    assert report.scale.verdict == "normalised"


@pytest.mark.parametrize(
    ("verdict", "factor"),
    [("raw", 1.0), ("normalised", 1.0), ("normalised twice", 1.0), ("scaled by 7", 7.0)],
)
def test_the_scale_is_judged_by_its_figures(verdict: str, factor: float) -> None:
    normalization = known_normalization("wan")
    assert normalization is not None
    raw = random(16, 64, 8, 8) / torch.tensor(normalization.scale).view(-1, 1, 1, 1)
    raw = raw + torch.tensor(normalization.shift).view(-1, 1, 1, 1)
    once = normalization.apply(raw)
    latents = {"normalised": once, "normalised twice": normalization.apply(once)}
    chosen = latents.get(verdict, raw * factor).flatten(1)
    mean, std = chosen.mean(1).tolist(), chosen.std(1).tolist()
    found = judge_scale(mean, std, normalization)
    assert found.verdict == verdict if factor == 1 else found.verdict[:10] in ("scaled by ",)
    assert list(found.distances.values()) == sorted(found.distances.values())


def _saved(value: object) -> bytes:
    target = io.BytesIO()
    torch.save(value, target)
    return target.getvalue()


@pytest.mark.parametrize(
    ("value", "words"),
    [(float("nan"), "1 of its log-variances are NaN"), (1000.0, "to 1000: models give -30 to 20")],
)
def test_log_variances_are_looked_at(tmp_path: Path, value: float, words: str) -> None:
    clip, path = write_clip(tmp_path / "a.mp4"), tmp_path / "cache" / "a.safetensors"
    path.parent.mkdir()
    assert wfvae("encode", clip, "-o", path, "--posterior", "moments").code == 0
    assert wfvae("audit", path).code == 0
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in ("latents", "logvar")}
    tensors["logvar"][0, 0, 0, 0] = value
    save_file(tensors, path, metadata)
    answer = wfvae("audit", path, "--json")
    assert answer.code == 7
    assert words in json.loads(answer.stdout)["files"][0]["problems"][0]


def test_clips_of_other_weights_are_told(tmp_path: Path) -> None:
    clips = tmp_path / "in"
    for name in "abc":
        write_clip(clips / f"{name}.mkv")
    assert wfvae("encode", clips, "-o", tmp_path / "z").code == 0
    path = tmp_path / "z" / "b.mkv.safetensors"
    with safe_open(path, "pt") as file:
        metadata, latents = file.metadata(), file.get_tensor("latents")
    save_file({"latents": latents}, path, {**metadata, "model_sha256": "0" * 64})
    answer = wfvae("audit", tmp_path / "z", "--json")
    found = {each["name"]: each["problems"] for each in json.loads(answer.stdout)["files"]}
    assert answer.code == 7
    assert [name for name, problems in found.items() if problems] == [path.name]
    assert found[path.name][0].startswith("made by other weights than wfvae-tiny")
    # The same weights in another file have another hash, and the latents show that they are.
    assert wfvae("audit", tmp_path / "z", "--source", clips).code == 0


def test_sources_of_one_stem_are_told_apart_by_their_hash(tmp_path: Path) -> None:
    rows = []
    for folder in "ab":
        write_clip(tmp_path / folder / "clip.mkv", seed=ord(folder))
        rows.append(f"{folder}/clip.mkv,scene-{folder}")
    (tmp_path / "list.csv").write_text("path,id\n" + "\n".join(rows))
    assert wfvae("encode", tmp_path / "list.csv", "-o", tmp_path / "z").code == 0
    both = ("--source", tmp_path / "a", "--source", tmp_path / "b")
    answer = wfvae("audit", tmp_path / "z", *both, "--json")
    found = json.loads(answer.stdout)["comparisons"]
    assert [each["kind"] for each in found] == ["equal", "equal"]


def test_compare_is_about_sources(tmp_path: Path) -> None:
    assert_refused(wfvae("audit", tmp_path, "--compare", "3"), 2, "add --source")


def test_info_says_what_a_cache_is(tmp_path: Path) -> None:
    path = Musubi(tmp_path / "musubi").write("a", random(16, 3, 5, 8), 9)
    (tmp_path / "st").mkdir()
    torch.save(random(16, 3, 4, 6), tmp_path / "st" / f"{'0' * 64}.pt")
    for source, form in ((path, "musubi-tuner"), (tmp_path / "musubi", "musubi-tuner")):
        found = json.loads(wfvae("info", source, "--json").stdout)
        assert (found["kind"], found["format"], found["clips"]) == ("cache of latents", form, 1)
        assert found["shapes"] == {"16x3x5x8": 1}
        assert found["more"] == f"wfvae audit {source}"
    answer = wfvae("info", tmp_path / "st" / f"{'0' * 64}.pt")
    assert answer.code == 0
    assert "SimpleTuner" in answer.stdout
    write_clip(tmp_path / "videos" / "a.mp4")
    assert_refused(wfvae("info", tmp_path / "videos"), INPUT, "neither latents nor a checkpoint")
