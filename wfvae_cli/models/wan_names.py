"""Tensor names of Wan's VAEs in their published layouts, and the modules' own.

Each network is published in two layouts: its authors' and diffusers' (`AutoencoderKLWan`,
`AutoencoderKLQwenImage`). Names of the second become those of the first, and these the modules'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_Replacements = tuple[tuple[re.Pattern[str], str], ...]


def rename_wan(names: Iterable[str]) -> dict[str, str]:
    """Map the tensor names of a Wan 2.1 checkpoint, in either layout, to those of `WanVAE`."""
    names = list(names)
    original = _is_original(names)
    resnets = [int(found[1]) for name in names if (found := _UP_RESNET.match(name))]
    layers_per_level = max(resnets, default=0) + 2
    return {
        name: _replace_first(name if original else _to_flat(name, layers_per_level), _RENAMES)
        for name in names
    }


def rename_wan22(names: Iterable[str]) -> dict[str, str]:
    """Map the tensor names of a Wan 2.2 checkpoint, in either layout, to those of `Wan22VAE`."""
    names = list(names)
    original = _is_original(names)
    return {
        name: _replace_first(
            _replace_first(name if original else _to_nested(name), _LEVELS), _RENAMES
        )
        for name in names
    }


def _is_original(names: list[str]) -> bool:
    return "encoder.conv1.weight" in names


def _compile(*replacements: tuple[str, str]) -> _Replacements:
    return tuple((re.compile(pattern), ours) for pattern, ours in replacements)


_RENAMES = _compile(
    (r"^conv1\.", "quant_conv.conv."),
    (r"^conv2\.", "post_quant_conv.conv."),
    (r"^(encoder|decoder)\.conv1\.", r"\1.conv_in.conv."),
    (r"^(encoder|decoder)\.head\.0\.", r"\1.norm_out."),
    (r"^(encoder|decoder)\.head\.2\.", r"\1.conv_out.conv."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1.conv."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2.conv."),
    (r"\.shortcut\.", ".nin_shortcut.conv."),
    (r"\.resample\.1\.", ".space.conv."),
    (r"\.time_conv\.", ".time.conv."),
)
"""Renamings from the original layout to the modules' names; the first match is applied."""

_LEVELS = _compile(
    (
        r"^(\w+)\.(?:down|up)samples\.(\d+)\.(?:down|up)samples\.\d+\.(resample|time_conv)\.",
        r"\1.levels.\2.resample.\3.",
    ),
    (
        r"^(\w+)\.(?:down|up)samples\.(\d+)\.(?:down|up)samples\.(\d+)\.",
        r"\1.levels.\2.blocks.\3.",
    ),
)
"""Wan 2.2's levels: residual blocks, and behind them the resampling."""

_LEAVES = _compile(
    (r"^norm1\.", "residual.0."),
    (r"^conv1\.", "residual.2."),
    (r"^norm2\.", "residual.3."),
    (r"^conv2\.", "residual.6."),
    (r"^conv_shortcut\.", "shortcut."),
)
"""Inside a residual block, from diffusers' layout to the original."""

_TRUNKS = _compile(
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"^(encoder|decoder)\.conv_in\.", r"\1.conv1."),
    (r"^(encoder|decoder)\.norm_out\.", r"\1.head.0."),
    (r"^(encoder|decoder)\.conv_out\.", r"\1.head.2."),
)
"""Outside of blocks, from diffusers' layout to the original."""

_UP_RESNET = re.compile(r"^decoder\.up_blocks\.\d+\.resnets\.(\d+)\.")
_BLOCK = re.compile(
    r"^(?P<half>encoder|decoder)\."
    r"(?:mid_block\.resnets\.(?P<middle>\d+)"
    r"|mid_block\.(?P<attention>attentions\.0)"
    r"|down_blocks\.(?P<down>\d+)"
    r"|up_blocks\.(?P<level>\d+)\.(?:resnets\.(?P<resnet>\d+)|upsamplers\.0))"
    r"\.(?P<rest>.+)$"
)
_LEVEL = re.compile(
    r"^(?P<half>encoder|decoder)\.(?P<way>down|up)_blocks\.(?P<level>\d+)\."
    r"(?:resnets\.(?P<resnet>\d+)|(?:down|up)sampler)\.(?P<rest>.+)$"
)


def _to_flat(name: str, layers_per_level: int) -> str:
    """Turn a name of diffusers' layout into the original's, which numbers layers throughout.

    Args:
        name: a tensor's name; one that is of no known form stays as it is.
        layers_per_level: residual blocks of a decoder level and its upsampling.
    """
    block = _BLOCK.match(name)
    if block is None:
        return _replace_first(name, _TRUNKS)
    rest = _replace_first(block["rest"], _LEAVES)
    if block["middle"]:
        return f"{block['half']}.middle.{2 * int(block['middle'])}.{rest}"
    if block["attention"]:
        return f"{block['half']}.middle.1.{rest}"
    if block["down"]:
        return f"{block['half']}.downsamples.{block['down']}.{rest}"
    within = int(block["resnet"]) if block["resnet"] else layers_per_level - 1
    return f"{block['half']}.upsamples.{int(block['level']) * layers_per_level + within}.{rest}"


def _to_nested(name: str) -> str:
    """Turn a name of Wan 2.2 in diffusers' layout into the original's.

    The resampling of a level gets the number 99: which one it has there says nothing.
    """
    level = _LEVEL.match(name)
    if level is None:
        return _to_flat(name, 0)
    samples = f"{level['way']}samples"
    rest = _replace_first(level["rest"], _LEAVES)
    within = level["resnet"] or "99"
    return f"{level['half']}.{samples}.{level['level']}.{samples}.{within}.{rest}"


def _replace_first(name: str, replacements: _Replacements) -> str:
    for pattern, replacement in replacements:
        if pattern.search(name):
            return pattern.sub(replacement, name, count=1)
    return name
