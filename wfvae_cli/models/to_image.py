"""Conversion of a video VAE to an image VAE: the starting point for training WF-VAE's image form.

What a second-generation video model computes for a clip's first frame is nearly an image model.
Its causal convs see that frame repeated, so their temporal taps add up; nothing moves, so the
encoder's temporal-high wavelet bands are zero and the weights that read them go; the Haar
transforms' gains and, in the decoder, the signs of their temporal halves fold into the convs
beside them. One thing has no place in the image form: where a level halves time, the video
decoder enlarges the first frame bilinearly, and the image decoder by nearest neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wfvae_cli.errors import UsageError, WeightsError
from wfvae_cli.models.base import VideoVAE
from wfvae_cli.models.weights import build_on_meta
from wfvae_cli.models.wfvae2 import WFVAE2, WFVAE2Config
from wfvae_cli.nn.haar import GAIN_2D, GAIN_3D
from wfvae_cli.nn.stream import Stream

_BANDS = (0, 2, 1, 3)
"""Temporal-low 3D bands (LLL, LLH, LHL, LHH) in the order in which 2D transforms have them."""
_ANALYSIS_GAIN = 2 * GAIN_3D / GAIN_2D
"""A still's temporal-low 3D bands over its 2D bands: two equal frames add up."""
_SYNTHESIS_GAIN = GAIN_3D / GAIN_2D

_FLAT = {
    "ResnetBlock2D": "ResnetBlock2D",
    "ResnetBlock3D": "ResnetBlock2D",
    "AttnBlock3DFix": "AttnBlock2D",
    "AttnBlock2D": "AttnBlock2D",
}


class ImageCheckpoint(NamedTuple):
    """A checkpoint of the image form, complete with its constants."""

    config: dict[str, Any]
    state: dict[str, Tensor]
    notes: tuple[str, ...]
    """Sentences on what carried over and what could not."""


@dataclass(frozen=True)
class StillDistance:
    """Distance of an image model from the video model it was made from, on still images."""

    latents: float
    """RMS difference of the posteriors' means, over their RMS."""
    frames: float
    """RMS difference of what the video model's latents decode to, on the scale of [-1, 1]."""

    @property
    def psnr(self) -> float:
        """The decoded frames' distance in dB; infinite where they are equal."""
        return 20 * math.log10(2 / self.frames) if self.frames else math.inf

    def as_dict(self) -> dict[str, float | None]:
        """Return the values for JSON, with None for an infinite `psnr`."""
        psnr = self.psnr if self.frames else None
        return {"latents": self.latents, "frames": self.frames, "psnr": psnr}


def to_image(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> ImageCheckpoint:
    """Derive a checkpoint of the image form from a second-generation video checkpoint.

    Args:
        config: the content of its `config.json`.
        state: its tensors under the publishers' names; its wavelet filters may be absent.

    Returns:
        Config, tensors in the types that they had, and what to tell the user.

    Raises:
        UsageError: it is no second-generation model, or an image model already.
        WeightsError: the config cannot be built, or tensors of it are missing.
    """
    if config.get("_class_name", "WFVAE2Model") != "WFVAE2Model":
        raise UsageError(
            "expected a second-generation video checkpoint (WFVAE2Model) to make an image "
            f"checkpoint of, got {config['_class_name']}: only that family has an image form"
        )
    parsed = WFVAE2Config.parse(config)
    if parsed.input_dims == 2:
        raise UsageError("this checkpoint is of the image form already (input_type = 'image')")
    missing = build_on_meta(WFVAE2, config).state_dict().keys() - state.keys()
    if missing:
        raise WeightsError(
            f"{len(missing)} tensors of the video checkpoint are missing, such as {min(missing)}"
        )
    folds = _folds(parsed)
    flattened: dict[str, Tensor] = {}
    for name, value in state.items():
        if WFVAE2.constant(name) is None:
            ours = _flat_name(name, state)
            exact = value.to(torch.promote_types(value.dtype, torch.float32))
            exact = exact.sum(dim=2) if exact.ndim == 5 else exact
            module = ours.rpartition(".")[0]
            exact = folds[module](exact) if module in folds else exact
            flattened[ours] = exact.to(value.dtype)
    flattened |= _constants(len(parsed.level_dims))
    return ImageCheckpoint(_image_config(config), flattened, _notes(parsed))


def _image_config(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **config,
        "input_type": "image",
        "layer_type": ["hw" for _ in config["layer_type"]],
        "layer_res_type": [_FLAT[kind] for kind in config["layer_res_type"]],
        "mid_layers_type": [_FLAT[kind] for kind in config["mid_layers_type"]],
    }


def _flat_name(name: str, state: Mapping[str, Tensor]) -> str:
    """Leave out the `.conv` that causal convs have in their names and 2D convs do not."""
    module, _, leaf = name.rpartition(".")
    weight = state.get(f"{module}.weight")
    if weight is not None and weight.ndim == 5:
        return f"{module.removesuffix('.conv')}.{leaf}"
    return name


def _folds(config: WFVAE2Config) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the weight changes of the convs that read or write wavelet bands, by module name.

    In the encoder, a level's bands in the image model times `gain` are the video model's, so the
    conv that reads them is multiplied by it. In the decoder, a level's low band in the image
    model is `gain` times the video model's, down to the frames themselves, where it is 1.
    """
    levels = len(config.level_dims)
    gain = _ANALYSIS_GAIN
    folds = {"encoder.conv_in": _reading(gain, in_time=True)}
    for level, dims in enumerate(config.level_dims):
        gain *= _ANALYSIS_GAIN if dims == 3 else 1
        name = f"encoder.down_blocks.{level}.in_flow_conv"
        folds[name] = _reading(gain, in_time=dims == 3)
    gain = _SYNTHESIS_GAIN
    folds["decoder.conv_out"] = _writing(gain, in_time=True)
    for level, dims in enumerate(config.level_dims):
        gain *= _SYNTHESIS_GAIN if dims == 3 else 1
        name = f"decoder.up_blocks.{levels - 1 - level}.out_flow_conv.1"
        folds[name] = _writing(gain, in_time=dims == 3)
    return folds


def _reading(gain: float, in_time: bool) -> Callable[[Tensor], Tensor]:
    """Fold a conv that reads bands: `weight` is O, bands x 3, kh, kw."""

    def fold(value: Tensor) -> Tensor:
        if value.ndim == 1:
            return value  # a bias is added after the bands are read
        if in_time:
            bands = value.unflatten(1, (8, 3))  # type: ignore[no-untyped-call]  # torch's stubs
            value = bands[:, _BANDS].flatten(1, 2)
        return value * gain

    return fold


def _writing(gain: float, in_time: bool) -> Callable[[Tensor], Tensor]:
    """Fold a conv that writes bands: `weight` is bands x 3, I, kh, kw, `bias` bands x 3."""

    def fold(value: Tensor) -> Tensor:
        if in_time:
            bands = value.unflatten(0, (8, 3))  # type: ignore[no-untyped-call]  # torch's stubs
            # A clip's first frame is the second of its pair, where temporal-high bands subtract.
            value = (bands[:4] - bands[4:])[[*_BANDS]].flatten(0, 1)
        return value * gain

    return fold


def _constants(levels: int) -> dict[str, Tensor]:
    """The Haar filters that published checkpoints of the image form carry."""
    modules = [
        "encoder.wavelet_transform_in",
        *(f"encoder.down_blocks.{level}.wavelet_transform" for level in range(levels)),
        *(f"decoder.up_blocks.{level}.inverse_wavelet_transform" for level in range(levels)),
        "decoder.inverse_wavelet_transform_out",
    ]
    constants = {}
    for name in (f"{module}.{band}" for module in modules for band in ("aa", "ad", "da", "dd")):
        constant = WFVAE2.constant(name)
        assert constant is not None
        constants[name] = constant
    return constants


def _notes(config: WFVAE2Config) -> tuple[str, ...]:
    levels = len(config.level_dims)
    inexact = [
        f"decoder.up_blocks.{levels - 1 - level}.up"
        for level in reversed(range(levels))
        if config.level_dims[level] == 3
    ]
    encoder = (
        "exact on still images: the whole encoder (temporal taps summed, Haar gains folded in; "
        "weights that read temporal-high bands, which are zero on stills, are gone)"
    )
    if not inexact:
        return (encoder, "exact on still images: the whole decoder")
    return (
        encoder,
        "exact on still images: the decoder's convs, norms, attention and wavelet outputs",
        f"not exact: {', '.join(inexact)}: the video model enlarges a first frame bilinearly "
        "there and the image form by nearest neighbour, which training has to make up for",
    )


def sample_stills(count: int = 2, size: int = 128, seed: int = 0) -> Tensor:
    """Draw pictures with the spectrum of natural images (amplitude 1/frequency).

    Returns:
        BCTHW of one frame each, float32 in [-1, 1].
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 3, size, size, generator=generator)
    down, across = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    frequency = (down.square() + across.square()).sqrt().clamp(min=1 / size)
    pictures: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency, s=(size, size))
    pictures = pictures / pictures.std(dim=(2, 3), keepdim=True)
    return pictures.mul(0.4).clamp(-1, 1).unsqueeze(2)


def still_distance(video: VideoVAE, image: VideoVAE, stills: Tensor) -> StillDistance:
    """Compare a video model on clips of one frame with an image model on the same pictures.

    Args:
        video: the model that the image model was made of.
        image: the image model.
        stills: BCTHW of one frame each in [-1, 1], of the models' device and type.
    """
    with torch.inference_mode():
        expected = video.encode(stills, Stream.whole()).mean
        latents = image.encode(stills, Stream.whole()).mean
        frames = image.decode(expected, Stream.whole()) - video.decode(expected, Stream.whole())
    return StillDistance(_rms(latents - expected) / _rms(expected), _rms(frames))


def _rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())
