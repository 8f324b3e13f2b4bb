import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.program import wfvae
from wfvae_cli import __version__

_NETWORK = {"fsspec", "http.client", "huggingface_hub", "ray", "ssl", "urllib.request"}
_RARE = {
    "ddsketch",
    "matplotlib",
    "pyarrow",
    "rich.progress",
    "sympy",
    "torch._dynamo",
    "wfvae_cli.cli.bench",
    "wfvae_cli.dataset.engine",
    "wfvae_cli.media.web",
    "wfvae_cli.report",
}


def loaded_by(folder: Path, *arguments: str | Path, before: str = "pass") -> tuple[int, set[str]]:
    """Run a command in a process of its own.

    Args:
        folder: where to put a file.
        arguments: the command.
        before: a statement whose imports are not counted.

    Returns:
        The exit code, and the names of the modules that the command has loaded.
    """
    names = folder / "modules.txt"
    code = (
        f"{before}\nimport sys\nbefore = {{*sys.modules}}\nfrom wfvae_cli.cli import main\n"
        "try:\n    main()\nfinally:\n"
        f"    open({str(names)!r}, 'w').write('\\n'.join({{*sys.modules}} - before))\n"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False)
    return done.returncode, set(names.read_text().splitlines())


@pytest.mark.parametrize("statement", ["import wfvae_cli.cli.app", "import wfvae_cli"])
def test_neither_torch_nor_av_is_loaded_at_import(statement: str) -> None:
    code = f"{statement}; import sys; print(sorted({{'torch', 'av', 'numpy'}} & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["encode", "--help"]])
def test_a_help_loads_little(arguments: list[str], tmp_path: Path) -> None:
    code, modules = loaded_by(tmp_path, *arguments)
    assert code == 0
    assert not modules & {"torch", "av", "numpy", "PIL", *_NETWORK}
    assert ("wfvae_cli.cli.bench" in modules) == (arguments == ["--help"])


def test_a_missing_input_is_told_without_torch(tmp_path: Path) -> None:
    code, modules = loaded_by(tmp_path, "encode", tmp_path / "a.png", "-o", "z.safetensors")
    assert code == 3
    assert not modules & {"torch", *_NETWORK, *_RARE}


def test_an_image_loads_what_it_needs(tmp_path: Path) -> None:
    image, output = tmp_path / "a.png", tmp_path / "z.safetensors"
    Image.new("RGB", (32, 32)).save(image)
    # PyTorch itself loads some of the network's modules, more or less of them by its version.
    code, modules = loaded_by(tmp_path, "encode", image, "-o", output, before="import torch")
    assert (code, output.exists()) == (0, True)
    assert "wfvae_cli.models.wfvae" in modules
    assert not modules & {*_NETWORK, *_RARE}


def test_files_are_described_without_torch() -> None:
    code = (
        "import sys; from wfvae_cli.latents.file import LatentFile, is_latent_file;"
        "from wfvae_cli.media.reader import open_clip; from wfvae_cli.media.writer import *;"
        "print('torch' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"


def test_the_version() -> None:
    answer = wfvae("--version")
    assert (answer.code, answer.stdout) == (0, f"wfvae {__version__}\n")


@pytest.mark.parametrize(
    "command",
    ["encode", "decode", "roundtrip", "stats", "compare", "info", "convert", "models", "bench"],
)
def test_every_help_has_an_example(command: str) -> None:
    answer = wfvae(command, "--help")
    assert answer.code == 0
    assert f"wfvae {command} " in answer.stdout.split("Example")[1]


def test_help_lists_the_exit_codes() -> None:
    assert "7 some files of many failed" in " ".join(wfvae("--help").stdout.split())


def test_an_unknown_command_is_a_usage_error() -> None:
    assert wfvae("enocde").code == 2
