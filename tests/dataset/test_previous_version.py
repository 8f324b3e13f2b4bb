"""Datasets that version 0.1.0 began: what it recorded is understood, and nothing is redone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.dataset.clips import contents, write_clip
from tests.dataset.conftest import run
from wfvae_cli.dataset.config import EncodeConfig, ModelFingerprint
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.source import content_sha256, stamp
from wfvae_cli.errors import OutputError
from wfvae_cli.latents.metadata import LatentMetadata
from wfvae_cli.latents.writer import LatentWriter
from wfvae_cli.models.load import load_model
from wfvae_cli.pipeline.options import EncodeOptions

# Written by `wfvae encode in -o z --posterior sample --seed 3 --limit 1` with OMP_NUM_THREADS=1.
MANIFEST = (
    '{"item": "a.mp4", "input": "/in/a.mp4", "status": "done", "output": "a.mp4.safetensors", '
    '"frames": 5, "shape": [16, 2, 3, 4], "seconds": 0.104, "error": null, "kind": null, '
    '"bytes": 2680, "stamp": "3920:1795963161830445338", "fingerprint": "d4e3fe05e9710486"}'
)
OPTIONS = (
    '{"batch": "1", "chunk": "auto", "compute_dtype": "float32", "layout": "wfvae", '
    '"normalization": "none", "posterior": "sample", "save_dtype": "float32", "seed": "3", '
    '"start": "0.0", "threads": "1"}'
)
WEIGHTS = "9c0cacb57ba796084ac16a2a333c008a7b1715588330eb6f756a42c963a5321a"
HEADER = {
    "bits": "8",
    "channels": "16",
    "colour_matrix": "smpte170m",
    "colour_primaries": "unknown",
    "colour_range": "tv",
    "colour_transfer": "unknown",
    "compute_dtype": "float32",
    "extra.options": OPTIONS,
    "extra.source_sha256": "d956e2bb099150449ebdeb90f27c236d9539f4ba801e20d3aec03174a3304e29",
    "family": "wfvae",
    "frame_rate": "8/1",
    "frames": "5",
    "height": "24",
    "is_image": "false",
    "model": "wfvae-tiny",
    "model_sha256": WEIGHTS,
    "normalization": "none",
    "pad_bottom": "0",
    "pad_frames": "0",
    "pad_right": "0",
    "pixel_format": "yuv420p",
    "posterior": "sample",
    "sample_aspect": "1/1",
    "schema": "wfvae-latents",
    "schema_version": "1",
    "seed": "6905444373699238826",
    "source": "a.mp4",
    "source_bits": "8",
    "start": "0/1",
    "stride_height": "8",
    "stride_time": "4",
    "stride_width": "8",
    "time_base": "1/16384",
    "width": "32",
}
CONFIG = EncodeConfig(EncodeOptions(posterior="sample", seed=3))


def test_options_are_recorded_as_they_were() -> None:
    item, model = Item("/in/a.mp4", "a.mp4"), ModelFingerprint(WEIGHTS, "float32", 1)
    assert CONFIG.recorded(item, model) == json.loads(OPTIONS)
    assert CONFIG.fingerprint(item, model) == json.loads(MANIFEST)["fingerprint"]


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A dataset of two clips of which the version before encoded one, with today's weights."""
    folder, output = tmp_path / "in", tmp_path / "z"
    write_clip(folder / "a.mp4", 5, seed=1)
    write_clip(folder / "b.mp4", 5, seed=2)
    output.mkdir()
    source, weights = str(folder / "a.mp4"), load_model(device="cpu").sha256
    changes = {
        "model_sha256": weights,
        "extra.source_sha256": content_sha256(source, stamp(source)),
    }
    path = output / "a.mp4.safetensors"
    with LatentWriter(path, LatentMetadata.from_strings({**HEADER, **changes})) as writer:
        writer.append(torch.zeros(16, 2, 3, 4))
        writer.finish(5)
    item = Item(source, "a.mp4")
    line = {
        **json.loads(MANIFEST),
        "input": source,
        "bytes": path.stat().st_size,
        "stamp": stamp(source),
        "fingerprint": CONFIG.fingerprint(item, ModelFingerprint(weights, "float32", 1)),
    }
    (output / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    return tmp_path


@pytest.mark.parametrize("manifest", [True, False])
def test_it_resumes(begun: Path, manifest: bool) -> None:
    before = contents(begun / "z")
    if not manifest:
        (begun / "z/manifest.jsonl").unlink()
    summary = run(begun / "in", begun / "z", CONFIG)
    assert (summary.done, summary.current) == ((1, 1) if manifest else (2, 0))
    after = contents(begun / "z")
    assert after["a.mp4.safetensors"] == before["a.mp4.safetensors"], "nothing is redone"
    assert "b.mp4.safetensors" in after


def test_other_options_are_refused_with_the_difference(begun: Path) -> None:
    with pytest.raises(OutputError, match="posterior: sample, now mean; seed: 3, now unset"):
        run(begun / "in", begun / "z")
