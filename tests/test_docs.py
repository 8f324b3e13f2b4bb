"""What the documentation says can be done: its commands, its Python, its examples, its links.

Blocks marked `sh` are run, in the order of their page, in a folder that holds what a reader would
have; blocks marked `python` are run, too. Blocks without a language need what is not there: a GPU,
a cluster, a download. Of those, and of the README's commands, the options are looked up.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.cli.program import wfvae
from tests.cli.reports import scenery
from tests.media.conftest import write_clip
from wfvae_cli.cli.app import app

ROOT = Path(__file__).parents[1]
TEXTS = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md")),
    ROOT / "examples" / "README.md",
]
NAMES = [str(path.relative_to(ROOT)) for path in TEXTS]
CODE = [*TEXTS, *sorted((ROOT / "examples").rglob("*.sh"))]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


def commands(path: Path) -> Iterator[str]:
    """Every command line of a page's `sh` blocks."""
    for block in blocks(path, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if command := line.split(" #")[0].strip():
                yield command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, a dataset, its reconstructions, its latents, their statistics, and a checkpoint."""
    root = tmp_path_factory.mktemp("reader")
    write_clip(root / "in.mp4", scenery(0, 9, 64, 48), sound=True)
    (root / "videos").mkdir()
    for index in range(4):
        write_clip(root / "videos" / f"{index}.mp4", scenery(index, 17 + index, 64, 64))
    for name in ("originals", "reconstructions"):
        shutil.copytree(root / "videos", root / name)
    for command in (
        ("encode", root / "in.mp4", "-o", root / "z.safetensors"),
        ("encode", root / "videos", "-o", root / "latents", "--short-side", "64"),
        ("stats", root / "latents", "-o", root / "stats.json"),
    ):
        assert wfvae(*command).code == 0
    shutil.copytree(ROOT / "weights" / "wfvae-tiny", root / "my-vae")
    (root / "tests" / "data").mkdir(parents=True)
    shutil.copy(root / "in.mp4", root / "tests" / "data" / "sample.mp4")
    return root


@pytest.fixture
def reader(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, in which the test runs."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [name for name in NAMES if list(commands(ROOT / name))])
def test_the_commands_of_a_page_run(page: str, reader: Path) -> None:
    written = {"z.safetensors", "stats.json"}  # for pages that only read them
    for name in written:
        if re.search(rf"-o {name}", "\n".join(commands(ROOT / page))):
            (reader / name).unlink()
    for command in commands(ROOT / page):
        program, *arguments = shlex.split(command)
        assert program == "wfvae", command
        answer = wfvae(*arguments)
        assert answer.code == 0, f"{command}: {answer}"


@pytest.mark.parametrize(
    ("page", "index"),
    [(name, i) for name in NAMES for i in range(len(blocks(ROOT / name, "python")))],
)
def test_the_python_of_a_page_runs(page: str, index: int, reader: Path) -> None:
    if page == "README.md":
        (reader / "z.safetensors").unlink()  # which its first example writes
    exec(compile(blocks(ROOT / page, "python")[index], page, "exec"), {"__name__": page})


def test_there_are_pages_with_commands_and_python() -> None:
    assert sum(bool(list(commands(path))) for path in TEXTS) >= 5
    assert sum(len(blocks(path, "python")) for path in TEXTS) >= 4


def mentioned(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each `wfvae COMMAND` of a text that is code, with the options that it is given."""
    lines = text.replace("\\\n", " ").splitlines()
    for line in lines:
        code = (
            [line] if line.startswith(("    ", "wfvae ", "exec ")) else re.findall("`(.*?)`", line)
        )
        for piece in code:
            for part in re.split(r"[|;&]|  #", piece):
                if found := re.match(r"\s*(?:exec )?wfvae ([a-z][a-z-]*)(.*)", part):
                    yield found[1], re.findall(r"(?<!\S)--?[a-z][a-z-]*", found[2])


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_options_that_are_shown_exist(path: Path) -> None:
    program: Any = typer.main.get_command(app)
    for name, options in mentioned(path.read_text()):
        assert name in program.commands, name
        known = {flag for each in program.commands[name].params for flag in each.opts}
        assert not set(options) - known - {"-h", "--help"}, f"wfvae {name}: {options}"


@pytest.mark.parametrize("path", TEXTS, ids=NAMES)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    generated = {"command-line.md", "python-api.md"}  # by docs/hooks.py
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
        if not target.startswith("http") and Path(target).name not in generated:
            assert (path.parent / target).exists(), target


def test_the_site_has_a_page_of_every_command_and_of_all_of_the_library() -> None:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None and spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)

    import wfvae_cli

    page, program = hooks.command_line(), typer.main.get_command(app)
    for name, command in vars(program)["commands"].items():
        section = page.split(f"\n## wfvae {name}\n")[1].split("\n## ")[0]
        for parameter in command.params:
            if parameter.name != "help" and not parameter.hidden:
                shown = (
                    parameter.metavar if parameter.opts == [parameter.name] else parameter.opts[0]
                )
                assert f"`{shown}`" in section
    assert "| `--output`, `-o` | `OUT` |" in page
    api = hooks.python_api()
    for name in set(wfvae_cli.__all__) - {"__version__"}:
        assert f"heading: wfvae_cli.{name}\n" in api


def test_the_training_example_learns_and_draws(
    reader: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["latents", "stats.json", "--steps", "40", "-o", "sample.png"]
    monkeypatch.setattr("sys.argv", ["train_on_latents.py", *arguments])
    script = ROOT / "examples" / "train_on_latents.py"
    exec(compile(script.read_text(), str(script), "exec"), {"__name__": "__main__"})
    losses = [float(text) for text in re.findall(r"loss ([\d.]+)", capsys.readouterr().out)]
    assert losses[-1] < 0.95 * losses[0]
    assert (reader / "sample.png").read_bytes().startswith(b"\x89PNG")


def test_the_cells_of_the_notebook_run(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = json.loads((ROOT / "examples" / "tour.ipynb").read_text())
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    exec(compile("\n".join(cells), "tour.ipynb", "exec"), {"__name__": "tour"})
    assert (reader / "tour.mp4").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.sh")), ids=lambda p: p.name)
def test_scripts_are_programs_that_bash_can_parse(path: Path) -> None:
    assert path.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(path)], check=True)
