"""Which class builds which family: found by `config.json`'s `_class_name`, or by tensor names."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wfvae_cli.errors import WeightsError

if TYPE_CHECKING:
    from wfvae_cli.models.base import VideoVAE


@dataclass(frozen=True)
class Family:
    """One architecture: how a checkpoint says that it is of it, and where its code is."""

    class_names: tuple[str, ...]
    """Values of `_class_name` that mean this family."""
    target: str
    """`module:Class` of the `VideoVAE`, imported only when needed: it loads torch."""
    marks: tuple[tuple[str, ...], ...]
    """For each layout of names that it is published in: tensors that tell it from all others."""

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
        class_names=("WanVAE", "AutoencoderKLWan"),
        target="wfvae_cli.models.wan:WanVAE",
        marks=(
            ("encoder.middle.1.to_qkv.weight", "encoder.downsamples.0.residual.0.gamma"),
            ("encoder.mid_block.attentions.0.to_qkv.weight", "encoder.norm_out.gamma"),
        ),
    ),
    Family(
        class_names=("AutoencoderKL",),
        target="wfvae_cli.models.kl:KLImageVAE",
        marks=(("decoder.conv_norm_out.weight", "encoder.mid_block.resnets.0.conv1.weight"),),
    ),
)


def find_family(config: Mapping[str, Any], names: Iterable[str], where: str) -> Family:
    """Recognise the family of a checkpoint.

    Args:
        config: the content of its `config.json`.
        names: its tensors' names, which decide when the config has no `_class_name`.
        where: what messages call the checkpoint.

    Raises:
        WeightsError: the family is unknown, or cannot be told.
    """
    class_name = config.get("_class_name")
    if class_name is None:
        return _find_by_tensors(set(names), where)
    for family in FAMILIES:
        if class_name in family.class_names:
            return family
    known = _supported()
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
        f"{where}: its config.json has no _class_name and its tensors are of no known family; "
        f'add "_class_name" with one of: {", ".join(_supported())}'
    )


def _supported() -> list[str]:
    return [name for family in FAMILIES for name in family.class_names]
