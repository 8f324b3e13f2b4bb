"""Every command in the documentation that needs nothing but small clips runs.

Blocks marked `sh` are run, in the order of their page, in a folder that holds what a reader would
have. Blocks without a language need what is not there: a GPU, a cluster, a download.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.program import wfvae
from tests.cli.reports import scenery
from tests.media.conftest import write_clip

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {
    str(path.relative_to(DOCS)): commands
    for path in sorted(DOCS.rglob("*.md"))
    if (
        commands := [
            line.split(" #")[0]
            for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL)
            for line in block.replace("\\\n", " ").splitlines()
            if line.strip()
        ]
    )
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip, a dataset, its reconstructions and its latents."""
    root = tmp_path_factory.mktemp("reader")
    write_clip(root / "in.mp4", scenery(0, 9, 64, 48), sound=True)
    (root / "videos").mkdir()
    for index in range(4):
        write_clip(root / "videos" / f"{index}.mp4", scenery(index, 9, 64, 64))
    for name in ("originals", "reconstructions"):
        shutil.copytree(root / "videos", root / name)
    done = wfvae("encode", root / "videos", "-o", root / "latents", "--short-side", "64")
    assert done.code == 0
    return root


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(
    page: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for command in PAGES[page]:
        program, *arguments = shlex.split(command)
        assert program == "wfvae", command
        answer = wfvae(*arguments)
        assert answer.code == 0, f"{command}: {answer}"


def test_there_are_pages_with_commands() -> None:
    assert len(PAGES) >= 3
