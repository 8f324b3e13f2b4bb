"""Interface of the video VAE families to the pipelines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from wfvae_cli.errors import UsageError
from wfvae_cli.latents.normalization import Normalization
from wfvae_cli.nn.arithmetic import convolved_in
from wfvae_cli.nn.row_bands import Footprint
from wfvae_cli.nn.stream import Stream
from wfvae_cli.strides import Progression, Strides

Half = Literal["encode", "decode"]
Task = Literal["encode", "decode", "both"]
"""Halves of a model that a task needs: the encoder, the decoder, or both."""


class Posterior(NamedTuple):
    """A diagonal Gaussian over latents; both tensors are BCTHW."""

    mean: Tensor
    logvar: Tensor

    @classmethod
    def from_moments(cls, moments: Tensor) -> Posterior:
        """Split a network's B 2Z THW output; the log-variance is clamped to [-30, 20]."""
        mean, logvar = moments.chunk(2, dim=1)
        return cls(mean, logvar.clamp(-30.0, 20.0))

    def sample(self, noise: Tensor) -> Tensor:
        """The latents that standard normal `noise` of the mean's shape picks."""
        return self.mean + noise * torch.exp(0.5 * self.logvar)


class HalfTypes(NamedTuple):
    """The floating-point types that the two halves of a model compute in."""

    encode: torch.dtype
    decode: torch.dtype


class Halves(NamedTuple):
    """Functions that run a checked chunk and its stream through the encoder and the decoder."""

    encode: Callable[[Tensor, Stream], Posterior]
    decode: Callable[[Tensor, Stream], Tensor]


class VideoVAE(nn.Module, ABC):
    """A video VAE: weights only. What a clip leaves behind lives in that clip's `Stream`."""

    family: str
    """Short name of the architecture, written into latent files: `wfvae`, `wan`, …"""
    encoder_modules: ClassVar[tuple[str, ...]] = ("encoder",)
    """Submodules that only encoding runs, by their dotted names."""
    decoder_modules: ClassVar[tuple[str, ...]] = ("decoder",)
    """Submodules that only decoding runs."""

    strides: Strides
    latent_channels: int
    peak_values_per_pixel: float
    """Numbers that a pixel of a chunk needs at the peak of decoding, as measured: a chunk takes
    about this times its pixels and the bytes of a number."""
    own_tile: int | None = None
    """Pixels, of all of its frames, of the overlapping tiles that the network itself cuts a clip
    into: no more go through it together. None where there are none."""
    footprint: Footprint | None = None
    """Memory per pixel, to plan row bands with; None where a layer sees too far for bands."""
    normalization: Normalization | None = None
    """Normalisation in the checkpoint's config; None where it has none that is usable."""
    state_growth_per_latent: int = 0
    """Numbers that a clip's state grows by with every latent frame, at each of its positions, in
    encoding and in decoding alike; 0 where it keeps its size."""
    statistics: tuple[str, ...] = ()
    """Tensors of the checkpoint that are no weights, but say how its latents are distributed:
    what `use_statistics` takes. They may be absent, and of any type."""
    chunk_unit: int = 1
    """Latent frames that go through together, behind the first one: every chunk but the last holds
    a multiple of them, and the first one more."""
    whole_clip_only: str | None = None
    """Reason that this configuration cannot be run in chunks; None where it can."""
    loaded_for: Task = "both"
    """Halves whose weights are loaded; the others are on the meta device."""
    compiled: Halves | None = None
    """Compiled halves that run the chunks, once `compile_halves` was called."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any]) -> VideoVAE:
        """Build the module that `config.json` describes, weights not yet loaded.

        Raises:
            WeightsError: a field is missing, unknown or has an unsupported value.
        """

    @classmethod
    def rename(cls, names: Iterable[str]) -> dict[str, str]:
        """Map checkpoint tensor names to this module's parameter names (default: equal)."""
        return {name: name for name in names}

    @classmethod
    def constant(cls, name: str) -> Tensor | None:
        """The value that checkpoint tensor `name` must have if it is no weight but a constant."""
        del name
        return None

    def use_statistics(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the normalisation from the checkpoint's tensors that `statistics` names.

        Args:
            tensors: those that the checkpoint has and that are of a float type, on the CPU.
        """

    @classmethod
    def is_needed(cls, parameter: str, task: Task) -> bool:
        """Tell if `task` runs the layer that holds the parameter with this dotted name."""
        others = {"encode": cls.decoder_modules, "decode": cls.encoder_modules, "both": ()}[task]
        return not any(parameter.startswith(f"{module}.") for module in others)

    def dtype_of(self, half: Half) -> torch.dtype:
        """Give the type of a half's weights; undefined for one that was not loaded."""
        return next(
            weight.dtype for name, weight in self.named_parameters() if self.is_needed(name, half)
        )

    def encode(self, frames: Tensor, stream: Stream) -> Posterior:
        """Encode the next chunk of a clip.

        Args:
            frames: BCTHW in [-1, 1], RGB. The stream's first chunk has one of the lengths that
                `strides` gives, mostly `1 + k*strides.time`; every later one `k*strides.time`
                frames. H and W are of its sizes, mostly multiples of the strides.
            stream: state of this clip's earlier chunks; changed in place.

        Returns:
            The posterior of the chunk's latent frames, log-variance clamped.

        Raises:
            UsageError: the chunk's shape does not fit, this configuration cannot be chunked, or
                the model was loaded for decoding only.
        """
        _, c, t, h, w = frames.shape
        s = self.strides
        if c != 3 or s.padded_size(w, h) != (w, h):
            raise UsageError(
                f"expected B3THW with width and height {s.sizes_form}, got {frames.shape = }"
            )
        if t not in (s.lengths.frames if stream.first else Progression.multiples(s.time)):
            form = f"{s.lengths.frames} frames first" if stream.first else f"{s.time}k frames next"
            raise UsageError(f"expected {form} in this stream, got {t}")
        self._enter(stream, "encode")
        run = self._encode if self.compiled is None else self.compiled.encode
        posterior = run(to_channels_last(frames), stream)
        stream.first = False
        return posterior

    def decode(self, latents: Tensor, stream: Stream) -> Tensor:
        """Decode the next chunk of a clip's latents.

        Args:
            latents: BCTHW, not normalised, any number of latent frames from 1, if `strides` gives
                no other lengths; of any type, since the encoder may compute in another one.
            stream: state of this clip's earlier chunks; changed in place. Set
                `stream.last` before the final chunk.

        Returns:
            BCTHW, RGB, about [-1, 1], not clamped. A model that looks ahead returns fewer
            frames than the chunk covers, and the rest with the last chunk.

        Raises:
            UsageError: the chunk's shape does not fit, this configuration cannot be chunked, or
                the model was loaded for encoding only.
        """
        _, c, t, h, w = latents.shape
        s = self.strides
        if c != self.latent_channels or t not in s.lengths.latents:
            raise UsageError(
                f"expected latents BCTHW with {self.latent_channels} channels and "
                f"{s.lengths.latents.form} frames, got {latents.shape = }"
            )
        if s.padded_size(w * s.width, h * s.height) != (w * s.width, h * s.height):
            raise UsageError(
                f"expected latents of pictures of {s.sizes_form} pixels, got {latents.shape = }"
            )
        self._enter(stream, "decode")
        run = self._decode if self.compiled is None else self.compiled.decode
        frames = run(to_channels_last(latents.to(self.dtype_of("decode"))), stream)
        stream.first = False
        return frames

    def _enter(self, stream: Stream, task: Task) -> None:
        if self.loaded_for not in (task, "both"):
            raise UsageError(
                f"this model was loaded to {self.loaded_for} only and cannot {task}: load it with "
                f"task={task!r}, or task='both'"
            )
        if self.whole_clip_only and not (stream.first and stream.last):
            raise UsageError(f"this model takes whole clips only: {self.whole_clip_only}")
        if stream.row_bands > 1 and self.footprint is None:
            raise UsageError("this model cannot be run in row bands: a layer sees too far")

    @abstractmethod
    def _encode(self, frames: Tensor, stream: Stream) -> Posterior:
        """Encode a chunk of checked shape, in channels-last memory."""

    @abstractmethod
    def _decode(self, latents: Tensor, stream: Stream) -> Tensor:
        """Decode a chunk of checked shape, in channels-last memory."""


def to_channels_last(x: Tensor) -> Tensor:
    """BCTHW with its channels adjacent in memory, which every layer here expects for speed."""
    return x.contiguous(memory_format=torch.channels_last_3d)


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model with its name, its config and the SHA-256 of its weights file."""

    vae: VideoVAE
    name: str
    """Name given by the user: an embedded or published name, a path, or `owner/repo`."""
    sha256: str
    """SHA-256 of the weights file, in hex; of the shards' digests in order where sharded."""
    config: Mapping[str, Any]

    @property
    def device(self) -> torch.device:
        """Device that holds the weights."""
        return self._weight.device

    def dtype_of(self, half: Half) -> torch.dtype:
        """Give the floating-point type that a half computes in, which must have been loaded."""
        return self.vae.dtype_of(half)

    @property
    def value_bytes(self) -> int:
        """Bytes of each number on its way through the model, as far as memory is concerned.

        Those of the half that computes in the longer type.
        """
        return max(
            convolved_in(torch.empty(0, dtype=self.dtype_of(half), device=self.device)).itemsize
            for half in self._halves
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the weights that were loaded."""
        return sum(weight.nbytes for weight in self.vae.parameters() if not weight.is_meta)

    @property
    def compute_dtype(self) -> str:
        """Compute types of the loaded halves, encoder first: `float32`, or `tf32, bfloat16`."""
        return ", ".join(dict.fromkeys(self.compute_dtype_of(half) for half in self._halves))

    def compute_dtype_of(self, half: Half) -> str:
        """Name a half's type as files record it: `float32`, `tf32`, `bfloat16` or `float16`."""
        name = str(self.dtype_of(half)).removeprefix("torch.")
        if name == "float32" and self.device.type == "cuda" and torch.backends.cudnn.allow_tf32:
            return "tf32"
        return name

    @property
    def _halves(self) -> tuple[Half, ...]:
        """The halves that were loaded."""
        task = self.vae.loaded_for
        return ("encode", "decode") if task == "both" else (task,)

    @property
    def _weight(self) -> Tensor:
        """One that was loaded: those of the half that is not needed have neither."""
        return next(weight for weight in self.vae.parameters() if not weight.is_meta)
