"""`wfvae roundtrip` with pages, several models, and datasets that are only measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cli.program import assert_refused, wfvae
from tests.cli.reports import scenery
from tests.media.conftest import write_clip
from tests.models.tiny import write_checkpoint
from tests.parity.cases import case_config, case_weights
from tests.report.clips import page_of
from wfvae_cli.cli.roundtrip_work import model_labels


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model of another family."""
    folder = tmp_path_factory.mktemp("models") / "mini-wan"
    write_checkpoint(folder, case_weights("mini-wan"), case_config("mini-wan"))
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos, a picture, and a file that is none."""
    root = tmp_path_factory.mktemp("clips") / "in"
    (root / "sub").mkdir(parents=True)
    write_clip(root / "a.mp4", scenery(1, 12, 32, 24))
    write_clip(root / "sub/b.mp4", scenery(2, 6, 40, 24))
    Image.fromarray(scenery(3, 1, 32, 24)[0]).save(root / "still.png")
    (root / "bad.mp4").write_bytes(b"no video")
    return root


@pytest.fixture(scope="module")
def there_and_back(tmp_path_factory: pytest.TempPathFactory, clips: Path, wan: Path) -> Path:
    """What two models make of the clips: outputs, a page, a report and a plot."""
    root = tmp_path_factory.mktemp("two")
    answer = wfvae(
        "roundtrip", clips, "-o", root / "out", "-m", "wfvae-tiny", "-m", wan, "--chunk", "5",
        "--html", root / "page", "--report", root / "r.json", "--plot", root / "p.svg",
        "--worst", "2", root / "stills", "--json",
    )  # fmt: skip
    assert_refused(answer, 7, "wfvae-tiny: 1 of 4 files failed", "mini-wan: 1 of 4 files failed")
    (root / "stdout").write_text(answer.stdout)
    return root


def test_each_model_has_a_folder_and_a_column_group(there_and_back: Path) -> None:
    for model in ("wfvae-tiny", "mini-wan"):
        made = {p.name for p in (there_and_back / "out" / model).rglob("*.*") if p.is_file()}
        assert made == {"a.mp4", "b.mp4", "still.png", "manifest.jsonl"}
        assert len(list((there_and_back / "stills" / model).glob("*-a.mp4-*.png"))) == 2
    page = page_of(there_and_back / "page")
    assert page["title"] == "wfvae-tiny and mini-wan against in"
    assert [model["name"] for model in page["models"]] == ["wfvae-tiny", "mini-wan"]
    assert [model["facts"]["family"] for model in page["models"]] == ["wfvae", "wan"]
    assert all(len(m["facts"]["SHA-256 of the weights"]) == 64 for m in page["models"])
    files = {file["name"]: file for file in page["files"]}
    assert set(files) == {"a.mp4", "sub/b.mp4", "still.png", "bad.mp4"}
    assert all("bad.mp4" in result["error"] for result in files["bad.mp4"]["results"])
    first = files["a.mp4"]["results"][0]
    assert first["frames"] == 12 and first["seconds"] > 0 and first["frames_per_second"] > 0
    assert first["latent_bytes"] == 16 * 4 * 3 * 4 * 4  # Z T' H' W' of float32
    assert page["command"].startswith("wfvae")


def test_the_page_knows_latents_subbands_and_chunks(there_and_back: Path) -> None:
    page = page_of(there_and_back / "page")
    tiny, wan = (model["latents"] for model in page["models"])
    assert (tiny["clips"], len(tiny["mean"]), len(wan["mean"])) == (3, 16, 4)
    assert tiny["kl_total"] > 0 and len(tiny["correlation"]) == 16
    assert "scaling_factor" in json.dumps(tiny["factors"])
    assert {each["kind"] for each in page["models"][0]["energy"]} == {"video", "image"}
    key = next(file["id"] for file in page["files"] if file["name"] == "a.mp4")
    script = (there_and_back / "page/clips" / key / "clip.js").read_text()
    details = json.loads(script[script.index("[") : script.rindex("]") + 1])
    assert [detail["chunks"] for detail in details] == [[0, 5, 9]] * 2


def test_scores_are_those_of_a_run_without_a_page(there_and_back: Path, clips: Path) -> None:
    written = json.loads((there_and_back / "r.json").read_text())["reconstructions"]
    assert [each["name"] for each in written] == ["wfvae-tiny", "mini-wan"]
    scores = {file["name"]: file for file in written[0]["per_file"]}
    alone = json.loads(wfvae("roundtrip", clips / "a.mp4", "--chunk", "5", "--json").stdout)
    assert scores["a.mp4"]["psnr"] == pytest.approx(alone["psnr"], abs=1e-6)
    assert len(scores["a.mp4"]["per_frame"]) == 12
    told = json.loads((there_and_back / "stdout").read_text().splitlines()[-1])
    assert told["event"] == "scores" and len(told["reconstructions"]) == 2
    assert (there_and_back / "p.svg").read_text().lstrip().startswith("<?xml")


def test_files_that_are_up_to_date_are_measured_and_not_written(
    there_and_back: Path, clips: Path, tmp_path: Path
) -> None:
    out = there_and_back / "out/wfvae-tiny"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    answer = wfvae(
        "roundtrip", clips, "-o", out, "--chunk", "5", "--html", tmp_path / "p", "--exclude",
        "bad*",
    )  # fmt: skip
    assert answer.code == 0, answer
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")} == before
    old = {f["name"]: f["results"] for f in page_of(there_and_back / "page")["files"]}
    for file in page_of(tmp_path / "p")["files"]:
        assert file["results"][0]["psnr"] == old[file["name"]][0]["psnr"]
    lines = (out / "manifest.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["sha256"] is not None


def test_without_an_output_a_dataset_is_only_measured(clips: Path, tmp_path: Path) -> None:
    answer = wfvae("roundtrip", clips, "--exclude", "bad*", "--report", tmp_path / "r.csv")
    assert answer.code == 0, answer
    assert "sub/b.mp4" in answer.stdout and "manifest" not in answer.stderr
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


def test_a_page_of_one_clip(clips: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "o.mp4", tmp_path / "page"
    answer = wfvae("roundtrip", clips / "a.mp4", "-o", out, "--html", page, "--json")
    assert answer.code == 0, answer
    assert json.loads(answer.stdout)["output"] == str(out)
    found: dict[str, Any] = page_of(page)
    assert [file["name"] for file in found["files"]] == ["a.mp4"]
    assert found["models"][0]["latents"]["clips"] == 1
    again = wfvae("roundtrip", clips / "a.mp4", "--html", page)
    assert_refused(again, 5, "holds a report", "--overwrite")


def test_what_cannot_be_is_refused(clips: Path) -> None:
    clip = clips / "a.mp4"
    assert_refused(wfvae("roundtrip", clip, "-m", "x", "-m", "x"), 2, "different models")
    assert_refused(wfvae("roundtrip", "-", "-m", "x", "-m", "y"), 2, "share a pipe")
    one_file = wfvae("roundtrip", clip, "-m", "x", "-m", "y", "-o", "o.mp4")
    assert_refused(one_file, 2, "several models need a folder")
    assert_refused(
        wfvae("roundtrip", clips, "-m", "x", "-m", "y", "--engine", "ray"), 2, "without -o"
    )
    on_ray = wfvae("roundtrip", clips, "-o", "out", "--engine", "ray", "--html", "p")
    assert_refused(on_ray, 2, "--html needs the frames in this process", "wfvae compare")


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["wan-2.1"], ("wan-2.1",)),
        (["a/vae", "b/vae"], ("a-vae", "b-vae")),
        (["x/one.safetensors", "org/two@main"], ("one", "two@main")),
    ],
)
def test_names_of_models_fit_for_folders(names: list[str], labels: tuple[str, ...]) -> None:
    assert model_labels(names) == labels


def test_a_list_is_not_replaced_by_its_report(clips: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text(f"path\n{clips / 'a.mp4'}\n")
    answer = wfvae("roundtrip", listed, "--report", listed, "--overwrite")
    assert_refused(answer, 5, "list.csv")
    assert listed.read_text().startswith("path")
