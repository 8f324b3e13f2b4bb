"""What each command does, through the real program and real files."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.cli.program import wfvae
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.media.reader import open_clip


def test_encode_then_decode(tmp_path: Path, clip: Path, latents: Path) -> None:
    answer = wfvae("decode", latents, "-o", tmp_path / "out.mp4")
    assert answer.code == 0
    assert answer.stdout == ""
    assert "10 frames of 64x48" in answer.stderr
    with open_clip(tmp_path / "out.mp4") as out, open_clip(clip) as original:
        assert out.info.frame_rate == original.info.frame_rate
        assert len(list(out)) == len(list(original)) == 10


def test_encode_json(tmp_path: Path, clip: Path) -> None:
    answer = wfvae("encode", clip, "-o", tmp_path / "z.safetensors", "--json")
    facts = json.loads(answer.stdout)
    assert facts["frames"] == 10
    assert facts["shape"] == [16, 4, 6, 8]
    assert answer.stderr == ""


def test_quiet_says_nothing(tmp_path: Path, clip: Path) -> None:
    answer = wfvae("encode", clip, "-o", tmp_path / "z.safetensors", "--quiet")
    assert (answer.code, answer.stdout, answer.stderr) == (0, "", "")


def test_sampling_options(tmp_path: Path, clip: Path) -> None:
    target = tmp_path / "z.safetensors"
    answer = wfvae(
        "encode", clip, "-o", target, "--start", "0.08", "--frames", "3", "--size", "32x24"
    )
    assert answer.code == 0, answer
    with LatentFile(target) as file:
        assert (file.metadata.frames, file.metadata.width, file.metadata.height) == (3, 32, 24)


def test_normalize_is_recorded_and_undone(tmp_path: Path, clip: Path, latents: Path) -> None:
    target = tmp_path / "z.safetensors"
    assert wfvae("encode", clip, "-o", target, "--normalize").code == 0
    with LatentFile(target) as file, LatentFile(latents) as raw:
        assert file.metadata.normalization is not None
        assert file.metadata.normalization.source == "config"
        assert (file.read() - raw.read()).abs().max() > 0.1
    for name, source in (("a.mkv", target), ("b.mkv", latents)):
        assert wfvae("decode", source, "-o", tmp_path / name, "--codec", "ffv1").code == 0
    with open_clip(tmp_path / "a.mkv") as a, open_clip(tmp_path / "b.mkv") as b:
        for x, y in zip(a, b, strict=True):
            assert np.abs(x.pixels.astype(int) - y.pixels.astype(int)).max() <= 1


def test_roundtrip_measures_reports_and_keeps_the_sound(tmp_path: Path, clip: Path) -> None:
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    answer = wfvae("roundtrip", clip, "-o", out, "--json", "--report", report)
    assert answer.code == 0, answer
    summary = json.loads(answer.stdout)
    assert {"input", "output", "frames", "width", "height", "psnr", "ssim", "seconds"} <= set(
        summary
    )
    assert summary["frames"] == 10
    frames = json.loads(report.read_text())["per_frame"]
    assert len(frames) == 10
    assert np.mean([frame["psnr"] for frame in frames]) == pytest.approx(summary["psnr"])
    with av.open(str(clip)) as original, av.open(str(out)) as copy:
        sound = [bytes(p) for p in original.demux(audio=0) if p.size]
        assert [bytes(p) for p in copy.demux(audio=0) if p.size] == sound


def test_roundtrip_without_sound(tmp_path: Path, clip: Path) -> None:
    assert wfvae("roundtrip", clip, "-o", tmp_path / "out.mp4", "--audio", "none").code == 0
    with av.open(str(tmp_path / "out.mp4")) as out:
        assert len(out.streams.audio) == 0


def test_decode_takes_sound_from_the_source(tmp_path: Path, clip: Path, latents: Path) -> None:
    out = tmp_path / "out.mkv"
    assert wfvae("decode", latents, "-o", out, "--audio-from", clip).code == 0
    with av.open(str(out)) as container:
        assert len(container.streams.audio) == 1


def test_images_both_ways(tmp_path: Path) -> None:
    picture, z, out = tmp_path / "in.png", tmp_path / "z.safetensors", tmp_path / "out.png"
    gradient = np.mgrid[:37, :51][0].astype(np.uint8) * 5
    Image.fromarray(np.stack((gradient,) * 3, axis=-1)).save(picture)
    assert wfvae("encode", picture, "-o", z).code == 0
    assert wfvae("decode", z, "-o", out).code == 0
    assert Image.open(out).size == (51, 37)


def test_frame_patterns_both_ways(tmp_path: Path, latents: Path) -> None:
    pattern = tmp_path / "frames" / "%05d.png"
    pattern.parent.mkdir()
    assert wfvae("decode", latents, "-o", pattern).code == 0
    assert len(list(pattern.parent.iterdir())) == 10
    answer = wfvae("encode", pattern, "-o", tmp_path / "z.safetensors", "--json")
    assert json.loads(answer.stdout)["frames"] == 10


@pytest.mark.parametrize("compare", ["side-by-side", "diff"])
def test_comparisons(tmp_path: Path, clip: Path, compare: str) -> None:
    out = tmp_path / "both.mp4"
    assert wfvae("roundtrip", clip, "-o", out, "--compare", compare).code == 0
    with open_clip(out) as reader:
        assert reader.info.width == (128 if compare == "side-by-side" else 64)


def test_info_of_latents(latents: Path) -> None:
    facts = json.loads(wfvae("info", latents, "--json").stdout)
    assert facts["kind"] == "latents"
    assert facts["shape"] == [16, 4, 6, 8]
    assert facts["frame_rate"] == "25"
    assert facts["source"] == "clip.mp4"


def test_info_of_a_video(clip: Path) -> None:
    facts = json.loads(wfvae("info", clip, "--json").stdout)
    assert (facts["kind"], facts["width"], facts["height"]) == ("video", 64, 48)
    assert "h264" in wfvae("info", clip).stdout


def test_info_of_an_image(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "in.png")
    facts = json.loads(wfvae("info", tmp_path / "in.png", "--json").stdout)
    assert (facts["kind"], facts["width"], facts["height"]) == ("image", 20, 10)


def test_info_of_a_checkpoint() -> None:
    facts = json.loads(wfvae("info", "wfvae-tiny", "--json").stdout)
    assert (facts["kind"], facts["family"]) == ("checkpoint", "wfvae")
    assert facts["latent_channels"] == 16
    assert len(facts["sha256"]) == 64


def test_info_for_people_joins_sizes(latents: Path) -> None:
    shown = wfvae("info", latents).stdout.splitlines()
    rows = dict(line.split(maxsplit=1) for line in shown if line.strip())
    assert rows["shape"].strip() == "16x4x6x8"
    assert rows["strides"].strip() == "4x8x8"


def test_info_for_people_tells_lists_once() -> None:
    facts = json.loads(wfvae("info", "wfvae-tiny", "--json").stdout)
    shown = wfvae("info", "wfvae-tiny").stdout
    assert f"{facts['parameters']:,}" in shown
    assert shown.count(f"{facts['config']['scale'][0]:.6g}") == 1
