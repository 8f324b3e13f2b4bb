"""A model with its settings and a clip, and the four stages that are timed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from wfvae_cli.errors import UsageError
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import open_clip
from wfvae_cli.models.base import Half, LoadedModel, Task
from wfvae_cli.models.load import allow_tf32, load_model, resolve_device
from wfvae_cli.models.options import DType
from wfvae_cli.nn.accelerator import synchronize
from wfvae_cli.pipeline.chunks import convert_on, read_chunks
from wfvae_cli.pipeline.decode import decode_clip
from wfvae_cli.pipeline.encode import encode_clip
from wfvae_cli.pipeline.halves import decode_latents, encode_frames
from wfvae_cli.pipeline.options import EncodeOptions, Tile
from wfvae_cli.pipeline.plan import ChunkPlan

Stage = Literal["encode", "decode", "encode from file", "decode to file"]
"""The bare model on a clip in memory, or all that the command of that name does."""
STAGES: tuple[Stage, ...] = get_args(Stage)
_UNTIL_REPLAYED = 3
"""Calls until a CUDA graph is replayed: one compiles and warms up, one records."""


@dataclass(frozen=True)
class Setting:
    """The settings that a benchmark can vary."""

    model: str
    device: str = "auto"
    dtype: DType = "auto"
    chunk: int | None = None
    """Frames of the first chunk; None suits the resolution."""
    threads: int | None = None
    """Threads of PyTorch's operations; None leaves its own choice."""
    tile: Tile = "auto"
    """Pixels of a tile's side, where the picture goes through in tiles."""
    compile: bool = False
    """True where chunks go through `torch.compile`."""

    def changed(self, text: str) -> Setting:
        """Change this setting by what `text` says, such as `dtype=bfloat16,chunk=9`.

        Raises:
            UsageError: a name or value is unknown.
        """
        changes: dict[str, str | int | bool] = {}
        for part in text.split(","):
            name, _, value = (piece.strip() for piece in part.partition("="))
            if name in ("chunk", "threads", "tile") and value.isdigit() and int(value):
                changes[name] = int(value)
            elif name == "compile" and value in ("on", "off"):
                changes[name] = value == "on"
            elif (
                (name in ("model", "device") and value)
                or (name == "dtype" and value in get_args(DType))
                or (name == "tile" and value in ("auto", "off"))
            ):
                changes[name] = value
            else:
                raise UsageError(
                    "--compare: expected model=, device=, dtype=, chunk=, threads=, tile= or "
                    "compile=on and a value, joined by commas, such as dtype=bfloat16,chunk=9; "
                    f"got {part!r}"
                )
        return replace(self, **changes)  # type: ignore[arg-type]  # checked above

    def describe(self) -> str:
        """Write the setting as users do."""
        parts = vars(self) | {"compile": "on" if self.compile else None}
        return " ".join(f"{name}={value}" for name, value in parts.items() if value is not None)


class Subject:
    """A model on a clip, ready to run each stage any number of times."""

    def __init__(self, setting: Setting, clip: Path, sampling: Sampling, folder: Path) -> None:
        self.setting, self._clip, self._sampling, self._folder = setting, clip, sampling, folder
        self.device = resolve_device(setting.device)
        self.encoder, self.decoder = self._load("encode"), self._load("decode")
        with open_clip(clip, sampling) as reader:
            self.width, self.height = reader.info.width, reader.info.height
            self.plan = self._plan(self.encoder)
            convert_on(self.device, reader)
            self._chunks = list(read_chunks(reader, self.encoder.vae.strides, self.plan))
        self.frames = sum(len(chunk.pts) for chunk in self._chunks)
        begin = time.perf_counter()
        self.latents = torch.cat(list(self.encoded()), dim=2)
        self.compile_seconds = self._compile(begin) if setting.compile else None
        """Until every kind of chunk had its graph; None where nothing is compiled."""
        self.run("encode from file")  # leaves the file that is decoded

    def run(self, stage: Stage) -> None:
        """Run a stage once."""
        if self.device.type == "cuda":
            allow_tf32(self.setting.dtype == "auto")  # process-wide: another setting changed it
        with self._threads():
            if stage == "encode":
                for _ in self.encoded():
                    pass
            elif stage == "decode":
                for _ in self.decoded():
                    pass
            elif stage == "encode from file":
                options = EncodeOptions(chunk=self.setting.chunk, tile=self.setting.tile)
                with open_clip(self._clip, self._sampling) as reader:
                    encode_clip(
                        reader, self._latent_file, self.encoder, options=options, overwrite=True
                    )
            else:
                decode_clip(
                    self._latent_file,
                    self._folder / "decoded.mp4",
                    self.decoder,
                    chunk=self.setting.chunk,
                    tile=self.setting.tile,
                    force=True,
                    overwrite=True,
                )

    def _compile(self, begin: float) -> float:
        """Run what is left to compile; return the seconds since `begin`."""
        for _ in range(_UNTIL_REPLAYED if self.device.type == "cuda" else 1):
            self.run("encode")
            self.run("decode")
        synchronize(self.device)
        return time.perf_counter() - begin

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Run the models uncompiled in a `with` block: operations in compiled code go uncounted."""
        if not self.setting.compile:
            yield
            return
        with torch.compiler.set_stance("force_eager"):
            yield

    def model_of(self, stage: Stage) -> LoadedModel:
        """Give the model that runs a stage."""
        return self.encoder if stage.startswith("encode") else self.decoder

    def dtype_of(self, stage: Stage) -> torch.dtype:
        """Give the type that a stage computes in."""
        half: Half = "encode" if stage.startswith("encode") else "decode"
        return self.model_of(stage).dtype_of(half)

    def decoded(self) -> Iterator[Tensor]:
        """Decode chunk by chunk; BCTHW."""
        plan, total = self._plan(self.decoder), self.latents.size(2)
        stream = plan.stream()
        for begin, end in plan.cuts(total):
            stream.last = end == total
            part = self.latents[:, :, begin:end].to(self.device, self.decoder.dtype_of("decode"))
            yield decode_latents(self.decoder, part, stream, plan.tile)

    def encoded(self) -> Iterator[Tensor]:
        """Encode chunk by chunk; the posterior's mean, BCTHW."""
        stream = self.plan.stream()
        for chunk in self._chunks:
            stream.last = chunk.last
            with torch.inference_mode():
                frames = chunk.to_tensor(self.device, self.encoder.dtype_of("encode"))
            yield encode_frames(self.encoder, frames, stream, self.plan.tile).mean

    def _load(self, task: Task) -> LoadedModel:
        setting = self.setting
        return load_model(
            setting.model,
            device=setting.device,
            dtype=setting.dtype,
            task=task,
            compile=setting.compile,
        )

    def _plan(self, model: LoadedModel) -> ChunkPlan:
        setting = self.setting
        return ChunkPlan.of(model, setting.chunk, self.width, self.height, tile=setting.tile)

    @contextmanager
    def _threads(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.setting.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    @property
    def _latent_file(self) -> Path:
        return self._folder / "latents.safetensors"
