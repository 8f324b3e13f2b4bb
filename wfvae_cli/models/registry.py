"""Registry of model families, looked up by `_class_name` of `config.json` or by tensor names."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from wfvae_cli.errors import WeightsError
from wfvae_cli.models.detect import infer_config, nearest_layout
from wfvae_cli.models.diffusers_table import CLASSES

if TYPE_CHECKING:
    from wfvae_cli.models.base import VideoVAE


@dataclass(frozen=True)
class Family:
    """One architecture: the marks of its checkpoints, and the module that implements it."""

    class_names: tuple[str, ...]
    """Values of `_class_name` that mean this family."""
    target: str
    """`module:Class` of the `VideoVAE`, imported only when needed: it loads torch."""
    marks: tuple[tuple[str, ...], ...]
    """For each layout of names that it is published in: tensors that tell it from all others."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `config.json` that tell this family from a later one with the same `_class_name`.
    A family's first `_class_name` is its own, and needs none."""

    def load(self) -> type[VideoVAE]:
        """Import the class."""
        module, _, name = self.target.partition(":")
        cls: type[VideoVAE] = getattr(importlib.import_module(module), name)
        return cls


FAMILIES: tuple[Family, ...] = (
    Family(
        class_names=("WFVAEModel",),
        target="wfvae_cli.models.wfvae:WFVAE",
        marks=(("encoder.down1.0.weight", "encoder.connect_l1.weight"),),
    ),
    Family(
        class_names=("WFVAE2Model",),
        target="wfvae_cli.models.wfvae2:WFVAE2",
        marks=(("encoder.down_blocks.0.in_flow_conv.weight",),),
    ),
    Family(
        class_names=("Wan2_2_VAE", "AutoencoderKLWan"),
        target="wfvae_cli.models.wan22:Wan22VAE",
        marks=(
            ("encoder.downsamples.0.downsamples.0.residual.0.gamma",),
            ("encoder.down_blocks.0.resnets.0.norm1.gamma", "encoder.norm_out.gamma"),
        ),
        fields={"is_residual": True},
    ),
    Family(
        class_names=("WanVAE", "AutoencoderKLWan"),
        target="wfvae_cli.models.wan:WanVAE",
        marks=(
            ("encoder.middle.1.to_qkv.weight", "encoder.downsamples.0.residual.0.gamma"),
            ("encoder.down_blocks.0.norm1.gamma", "encoder.norm_out.gamma"),
        ),
    ),
    # The names alone do not tell these two from relatives (LTX-Video, HunyuanImage's VAEs).
    Family(
        class_names=("AutoencoderKLLTX2Video",),
        target="wfvae_cli.models.ltx2:LTX2VAE",
        marks=(),
    ),
    Family(
        class_names=("AutoencoderKLHunyuanVideo15", "AutoencoderKLConv3D"),
        target="wfvae_cli.models.hunyuan15:Hunyuan15VAE",
        marks=(),
    ),
    Family(
        class_names=("AutoencoderKLQwenImage",),
        target="wfvae_cli.models.wan:QwenImageVAE",
        marks=(),  # its tensors are Wan 2.1's
    ),
    Family(
        class_names=("AutoencoderKLCogVideoX",),
        target="wfvae_cli.models.cogvideox:CogVideoXVAE",
        marks=(),
    ),
    Family(
        class_names=tuple(CLASSES),  # AutoencoderKL is the first, and the only one to have marks
        target="wfvae_cli.models.diffusers:DiffusersVAE",
        marks=(("decoder.conv_norm_out.weight", "encoder.mid_block.resnets.0.conv1.weight"),),
    ),
)


class SettledConfig(NamedTuple):
    """The config that a checkpoint's model is built by."""

    config: dict[str, Any]
    recognised_by: str
    """Evidence for the family, as text for the user."""
    note: str | None
    """Assumption made where no config was given; None where one was."""


def settle_config(
    given: Mapping[str, Any] | None, shapes: Mapping[str, Sequence[int]], where: str, remedy: str
) -> SettledConfig:
    """Take a checkpoint's config, or derive one from its tensors where they decide it.

    A config of another model is no config: Wan publishes its VAE beside that of its transformer.

    Args:
        given: the content of the `config.json` beside the checkpoint; None where there is none.
        shapes: the checkpoint's tensors, by name.
        where: name of the checkpoint in messages.
        remedy: how to give a config, for the message.

    Raises:
        WeightsError: there is no config and the tensors do not decide one.
    """
    class_name = None if given is None else given.get("_class_name")
    if given is not None and class_name in (None, *supported()):
        named = f"config.json: _class_name {class_name}"
        return SettledConfig(dict(given), named if class_name else "tensor names", None)
    inferred = infer_config(shapes)
    if inferred is not None:
        note = inferred.note
        if class_name is not None:
            note += f" (the config.json beside it is of {class_name}, another model)"
        return SettledConfig(inferred.config, f"tensor names and shapes: {note}", note)
    if given is not None:
        return SettledConfig(dict(given), "config.json", None)  # find_family raises the error
    raise WeightsError(
        f"{where} has no config.json beside it, which says how its model is built, and its "
        f"tensors do not decide it: {_likeness(shapes)}. {remedy}"
    )


def _likeness(names: Iterable[str]) -> str:
    nearest = nearest_layout(names)
    known = f"supported: {', '.join(supported())}"
    if nearest is None:
        return f"their names are like those of no supported model; {known}"
    return f"their names are most like those of {nearest}; {known}"


def find_family(config: Mapping[str, Any], names: Iterable[str], where: str) -> Family:
    """Recognise the family of a checkpoint.

    Args:
        config: the content of its `config.json`.
        names: its tensors' names, which decide when the config has no `_class_name`.
        where: name of the checkpoint in messages.

    Raises:
        WeightsError: the family is unknown, or cannot be told.
    """
    class_name = config.get("_class_name")
    if class_name is None:
        return _find_by_tensors(set(names), where)
    named = [family for family in FAMILIES if class_name in family.class_names]
    for family in named:
        own = class_name == family.class_names[0]
        if own or all(config.get(key) == value for key, value in family.fields.items()):
            return family
    known = supported()
    near = difflib.get_close_matches(str(class_name), known, n=1, cutoff=0.5)
    nearest = f"; the nearest is {near[0]}" if near else ""
    raise WeightsError(
        f"{where}: its config.json says _class_name {class_name!r}, which is not supported; "
        f"supported: {', '.join(known)}{nearest}"
    )


def _find_by_tensors(names: set[str], where: str) -> Family:
    for family in FAMILIES:
        if any(names.issuperset(layout) for layout in family.marks):
            return family
    raise WeightsError(
        f"{where}: its config.json has no _class_name and its tensors are of no known family: "
        f'{_likeness(names)}; add "_class_name" with one of these'
    )


def supported() -> list[str]:
    """Every `_class_name` that loads."""
    return list(dict.fromkeys(name for family in FAMILIES for name in family.class_names))
