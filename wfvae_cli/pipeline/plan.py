"""How much of a clip goes through a model together, and what happens when it is too much."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import psutil
import torch
from torch import Tensor

from wfvae_cli.errors import DeviceError, UsageError, is_out_of_memory
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.nn.stream import Stream
from wfvae_cli.pipeline.tiles import Grid, Tile, check_tile
from wfvae_cli.strides import latents_per_chunk, pad_to

log = logging.getLogger("wfvae")

_GIB = 2**30
_MOST_LATENTS = 8
"""Longer chunks gain nothing: by then the frames fill the device and overheads are spread."""
_SHARE = 0.8
"""Of the free memory that a plan may take: estimates are rough, and others run here, too."""
_TILES = (1024, 768, 512, 384, 256)
"""Sides that `--tile auto` tries. Smaller ones lose more, and repeat more."""
_BLENDED = 12.0
"""Numbers that each pixel of a frame takes while tiles are put together, in float32."""


Task = Literal["encode", "decode", "both"]
"""Which half of a model a clip goes through."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a plan may count on."""

    free: int
    """On the model's device."""
    host: int | None = None
    """In the system, where a device can park state; None where the device is the system."""

    @property
    def offload_room(self) -> float:
        """What offloaded state may take."""
        return _SHARE * (self.host or 0)

    @classmethod
    def now(cls, device: torch.device) -> Memory:
        """What is free at the moment."""
        available = psutil.virtual_memory().available
        if device.type == "cuda":
            return cls(torch.cuda.mem_get_info(device)[0], available)
        return cls(available)


@dataclass(frozen=True)
class ChunkPlan:
    """How a clip is cut: in time, and where memory is short in space, too."""

    first: int
    """Latent frames of the first chunk."""
    later: int
    """Latent frames of each of the later chunks."""
    row_bands: int = 1
    """row bands in which the model's largest layers run: exact."""
    tile: int | None = None
    """Pixels of the side of overlapping tiles: not exact. None for the whole picture."""
    offloaded: bool = False
    """Whether bands and tiles leave their state on the host until their turn comes."""

    @classmethod
    def of(
        cls,
        model: LoadedModel,
        chunk: int | None,
        width: int,
        height: int,
        *,
        tile: Tile = "off",
        task: Task = "both",
        memory: Memory | None = None,
    ) -> ChunkPlan:
        """The plan for `--chunk` frames, or for as many as suit resolution and memory.

        The first of these that fits: chunks of up to 8 latent frames, fewer, one in row bands,
        of one in tiles, if `tile` allows that.

        Args:
            model: what the chunks will go through.
            chunk: frames of the first chunk, `1 + k*stride` (any number for an image model);
                None chooses.
            width: pixels of a frame.
            height: pixels of a frame.
            tile: pixels of a tile's side, or whether there may be tiles.
            task: which halves of the model keep state of a clip.
            memory: what there is; None asks the device.

        Raises:
            UsageError: the model cannot be run in such chunks or tiles.
        """
        check_tile(tile, model.vae.strides)
        memory = memory or Memory.now(model.device)
        picture = Picture(model, width, height, task)
        if isinstance(tile, int) and picture.grid(tile).tiles > 1:
            plan = cls._in_time(model, chunk, min(tile, width) * min(tile, height), memory)
            plan = replace(plan, tile=tile)
            return replace(plan, offloaded=not picture.fits(plan, memory))
        plan = cls._in_time(model, chunk, width * height, memory)
        if model.vae.whole_clip_only is not None:
            return plan
        return picture.first_that_fits(plan, memory, tiles=tile == "auto")

    @classmethod
    def _in_time(
        cls, model: LoadedModel, chunk: int | None, pixels: int, memory: Memory
    ) -> ChunkPlan:
        """Chunks of pictures of `pixels`."""
        reason = model.vae.whole_clip_only
        if reason is not None:
            if chunk is not None:
                raise UsageError(
                    f"--chunk {chunk} cannot be used with {model.name}, which takes whole clips "
                    f"only: {reason}; leave --chunk out"
                )
            return cls(sys.maxsize, sys.maxsize)
        if chunk is None:
            later = _default_latents(model, pixels, memory)
        else:
            later = latents_per_chunk(chunk, model.vae.strides.time)
        # To an image model the first frame is like any other.
        return cls(later if model.vae.strides.time == 1 else 1 + later, later)

    def stream(self) -> Stream:
        """A new clip's."""
        return Stream(row_bands=self.row_bands, offloaded=self.offloaded)

    def cuts(self, total: int) -> Iterator[tuple[int, int]]:
        """Begin and end of every chunk of `total` latent frames."""
        begin, size = 0, self.first
        while begin < total:
            yield begin, min(begin + size, total)
            begin, size = begin + size, self.later


@dataclass(frozen=True)
class Picture:
    """What a model needs for frames of one size."""

    model: LoadedModel
    width: int
    height: int
    task: Task = "both"

    def grid(self, tile: int) -> Grid:
        """Tiles of the padded picture."""
        strides = self.model.vae.strides
        height = self.height + pad_to(self.height, strides.height)
        width = self.width + pad_to(self.width, strides.width)
        return Grid.of(height, width, tile, strides)

    def first_that_fits(self, plan: ChunkPlan, memory: Memory, *, tiles: bool) -> ChunkPlan:
        """The exact `plan`, or what takes its place where it does not fit.

        Where nothing does, it is what the device lacks least for: the estimate may be too high,
        and a device that runs out says so, as the host does not.
        """
        candidates = [plan, *self._in_row_bands(plan)]
        if tiles:
            candidates += self._in_tiles(plan)
        for candidate in candidates:
            if self.fits(candidate, memory):
                return candidate
        needs = [(self.needs(candidate, memory), candidate) for candidate in candidates]
        possible = [need for need in needs if need[0][1] <= memory.offload_room]
        return min(possible, key=lambda need: need[0][0])[1]

    def fits(self, plan: ChunkPlan, memory: Memory) -> bool:
        """Whether device and host have room for it."""
        device, host = self.needs(plan, memory)
        return device <= _SHARE * memory.free and host <= memory.offload_room

    def needs(self, plan: ChunkPlan, memory: Memory) -> tuple[float, float]:
        """Bytes at the peak, as estimated: on the device, and of state offloaded on the host."""
        vae = self.model.vae
        frames = vae.strides.time * (plan.first - 1) + 1
        working, state, outside = vae.peak_values_per_pixel * frames, 0.0, 0.0
        if vae.footprint is not None:
            working, outside = vae.footprint.working * frames, vae.footprint.outside * frames
            state += vae.footprint.encoder_state if self.task != "decode" else 0.0
            state += vae.footprint.decoder_state if self.task != "encode" else 0.0
        share = kept = 1.0
        if plan.tile is not None:
            grid = self.grid(plan.tile)
            share = grid.rows.tile * grid.columns.tile / (grid.rows.size * grid.columns.size)
            kept, outside = share * grid.tiles, _BLENDED * frames
        elif plan.row_bands > 1 and vae.footprint is not None:
            halos = 2 * vae.footprint.halo / self.height
            share, kept = min(1.0, 1 / plan.row_bands + halos), 1 + (plan.row_bands - 1) * halos
        else:
            outside = 0.0
        offloaded = state * kept if plan.offloaded and memory.host is not None else 0.0
        held = share * state if offloaded else state * kept
        scale = self.width * self.height * self.model.value_bytes
        return scale * (share * working + outside + held), scale * offloaded

    def _in_row_bands(self, plan: ChunkPlan) -> Iterator[ChunkPlan]:
        """The plan in ever more bands, none lower than the halos beside it."""
        footprint = self.model.vae.footprint
        if footprint is None:
            return
        for bands in range(2, self.height // (2 * footprint.halo) + 1):
            for offloaded in (False, True):
                yield replace(plan, row_bands=bands, offloaded=offloaded)

    def _in_tiles(self, plan: ChunkPlan) -> Iterator[ChunkPlan]:
        """The plan in ever smaller tiles."""
        for tile in _TILES:
            if self.grid(tile).tiles > 1:
                for offloaded in (False, True):
                    yield replace(plan, tile=tile, offloaded=offloaded)


def announce(plan: ChunkPlan) -> None:
    """Say what a user should know of a plan that memory, or an option, made."""
    if plan.tile is not None:
        log.info(
            "in overlapping tiles of %d pixels: not exact; wfvae bench --precision says by how "
            "much, and --tile off forbids it",
            plan.tile,
        )


def _default_latents(model: LoadedModel, pixels: int, memory: Memory) -> int:
    """Latent frames a chunk for frames of `pixels`.

    The budget is fixed, so that the same clip is cut the same way on any machine that has twice
    as much to spare; less memory makes smaller chunks.
    """
    budget = (16 if model.device.type == "cuda" else 1.25) * _GIB
    frame_bytes = model.vae.peak_values_per_pixel * model.value_bytes * pixels
    frames = min(budget, memory.free // 2) / frame_bytes
    return max(1, min(_MOST_LATENTS, int((frames - 1) // model.vae.strides.time)))


def halved_if_too_large(
    run: Callable[[Tensor, Stream], Tensor], x: Tensor, stream: Stream, stride: int | None
) -> Tensor:
    """Send the next chunk through a network; where memory runs out, once more in two halves.

    Args:
        run: takes a chunk and its stream, and raises `DeviceError` where memory runs out.
        x: BCTHW.
        stream: what the clip's earlier chunks left behind; changed in place.
        stride: frames of `x` that belong together after the clip's first one, 1 for latents; None
            where clips cannot be cut.

    Returns:
        What the whole chunk gives.

    Raises:
        DeviceError: a half does not fit either, or the chunk cannot be halved.
    """
    middle = 0
    if stride is not None:
        middle = stream.first + stride * ((x.size(2) - stream.first) // stride // 2)
    if middle in (0, x.size(2)):
        return run(x, stream)  # a fork would only keep state alive that is being replaced
    before = stream.fork()
    try:
        return run(x, stream)
    except DeviceError as error:
        what, _, _ = str(error).partition(":")
    # Outside of the handler, whose traceback would keep the failed chunk's tensors alive.
    log.info("%s: retrying in two halves", what)
    stream.past, stream.first, last = before.past, before.first, stream.last
    stream.last = False
    early = run(x[:, :, :middle], stream)
    stream.last = last
    return torch.cat((early, run(x[:, :, middle:], stream)), dim=2)


@contextmanager
def explained_memory(frames: int, width: int, height: int) -> Iterator[None]:
    """Turn running out of memory on a chunk into an error that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"out of memory in a chunk of {frames} frames of {width}x{height}: use a smaller "
            "--chunk, a smaller --size, --dtype bfloat16, or --tile where the command has it"
        ) from error
