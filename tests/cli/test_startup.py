import subprocess
import sys

import pytest

from tests.cli.program import wfvae
from wfvae_cli import __version__


@pytest.mark.parametrize("statement", ["import wfvae_cli.cli.app", "import wfvae_cli"])
def test_neither_torch_nor_av_is_loaded_at_import(statement: str) -> None:
    code = f"{statement}; import sys; print(sorted({{'torch', 'av', 'numpy'}} & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


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
