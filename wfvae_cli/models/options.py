"""Model options: its name, the device it runs on, and the type it computes in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from wfvae_cli.option import Option

if TYPE_CHECKING:
    from wfvae_cli.models.base import LoadedModel, Task

DType = Literal["auto", "float32", "bfloat16", "float16"]

DEFAULT_MODEL = "wfvae-tiny"

_SHORT: dict[str, DType] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_DTYPES: tuple[DType, ...] = ("auto", "float32", "bfloat16", "float16")
_MODEL = "Model"


def parse_dtype(text: str) -> DType:
    """A type's name, or its short form such as `bf16`."""
    for known in _DTYPES:
        if _SHORT.get(text, text) == known:
            return known
    raise ValueError(f"expected {', '.join(_DTYPES)}, or bf16, fp16, fp32, got {text!r}")


def dtype_names() -> Iterable[str]:
    """The values that `--dtype` completes."""
    return (*_DTYPES, *_SHORT)


def model_names() -> Iterable[str]:
    """The names that `--model` completes."""
    from wfvae_cli.models.published import PUBLISHED

    return [entry.name for entry in PUBLISHED]


def model_option(help: str) -> Option:
    """Describe `--model` of a command, whose `help` says what the model does there."""
    return Option(
        help, _MODEL, flags=("--model", "-m"), metavar="NAME", common=True, complete=model_names
    )


ModelName = Annotated[
    str,
    model_option(
        "An embedded or published name (wfvae models lists them), a folder with config.json and "
        "safetensors, a .safetensors file beside a config.json, or "
        "owner/repo\\[/subfolder]\\[@revision] on Hugging Face."
    ),
]


ModelNames = Annotated[
    list[str] | None,
    model_option(
        "As of wfvae encode; may be repeated: each model runs after the other. Default: "
        f"{DEFAULT_MODEL}."
    ),
]


@dataclass(frozen=True)
class RunOptions:
    """Device and arithmetic of a model."""

    device: Annotated[
        str,
        Option(
            "auto (an accelerator if there is one, else the CPU), cpu, cuda, cuda:N, mps, ...",
            _MODEL,
            metavar="NAME",
            common=True,
        ),
    ] = "auto"
    dtype: Annotated[
        DType,
        Option(
            "What the model computes in. auto: float32 to encode (TF32 on CUDA); to decode, "
            "bfloat16 where the device is fast at it.",
            _MODEL,
            metavar="auto|float32|bfloat16|float16",
            parse=parse_dtype,
            complete=dtype_names,
        ),
    ] = "auto"
    compile: Annotated[
        bool,
        Option(
            "Compile the model for each kind of chunk when it first comes. Meant for CUDA (it "
            "uses CUDA graphs) and many clips of one size; on a CPU it takes minutes and gains "
            "little.",
            _MODEL,
        ),
    ] = False

    def load(self, name: str, task: Task = "both") -> LoadedModel:
        """Load a model to run so: see `load_model`."""
        from wfvae_cli.models.load import load_model

        return load_model(
            name, device=self.device, dtype=self.dtype, task=task, compile=self.compile
        )
