"""The state of one clip between its chunks on the way through a causal network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn


@dataclass
class Stream:
    """The state of one clip on its way through one network.

    A new stream is a reset; a copy is a fork. A whole clip is a stream of one chunk, so there
    is one code path. Tensors in `past` are never changed in place.
    """

    past: dict[str, Tensor] = field(default_factory=dict)
    """Layer key -> BCTHW tail of what the layer saw, or holds back."""
    first: bool = True
    """No chunk has gone through yet; the network clears it after the first one."""
    last: bool = False
    """Set before the call that carries the clip's final chunk."""
    row_bands: int = 1
    """Row bands in which the largest layers run, throughout the clip: see `nn.row_bands`."""
    offloaded: bool = False
    """True where parts of the picture that are not running keep their state on the host."""

    @classmethod
    def whole(cls) -> Stream:
        """Make the stream of a clip that comes as a single chunk."""
        return cls(last=True)

    def fork(self) -> Stream:
        """Make a copy that continues independently."""
        return replace(self, past=dict(self.past))

    @classmethod
    def join(cls, streams: Sequence[Stream]) -> Stream:
        """Join the streams of clips that are equally far into one of a batch; one stays itself."""
        if len(streams) == 1:
            return streams[0]
        if any(tail.is_pinned() for tail in streams[0].past.values()):
            torch.accelerator.synchronize()  # offloaded state may still be on its way
        past = {key: torch.cat([each.past[key] for each in streams]) for key in streams[0].past}
        return replace(streams[0], past=past)

    def split(self, batch: int) -> list[Stream]:
        """Undo `join`: give a stream for each clip of a batch."""
        if batch == 1:
            return [self]
        return [
            replace(self, past={key: tail[i : i + 1] for key, tail in self.past.items()})
            for i in range(batch)
        ]

    @property
    def nbytes(self) -> int:
        """Count the bytes that this clip keeps between chunks."""
        return sum(tail.numel() * tail.element_size() for tail in self.past.values())


class Streaming(nn.Module):
    """A layer that keeps something in the stream, under its own `key`."""

    key: str = ""


def name_layers(network: nn.Module) -> None:
    """Give every streaming layer its dotted name in `network` as key. Call once when built."""
    for name, layer in network.named_modules():
        if isinstance(layer, Streaming):
            layer.key = name


def align(x: Tensor, frames: int, key: str, stream: Stream) -> Tensor:
    """Give `frames` frames of a path that is ahead of another one; keep the rest for later.

    Paths of different delay that meet must wait for each other: `x` (BCTHW) joins what was
    kept before under `key`.
    """
    if key in stream.past:
        x = torch.cat((stream.past.pop(key), x), dim=2)
    if x.size(2) > frames:
        stream.past[key] = x[:, :, frames:].clone()
    return x[:, :, :frames]
