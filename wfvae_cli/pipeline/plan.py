"""Planning of chunks, row bands and tiles for the memory at hand.

Chunk sizes change the rounding, so a clip has to be cut alike alone and in a folder. The budget for
chunks therefore depends on the device, and not on how much of it is free. Where memory is short,
the plan falls back to the first of these that fits, reports it, and records it in the header:
shorter chunks, row bands (exact), and tiles where they are allowed (not exact).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch

from wfvae_cli.errors import DeviceError, UsageError
from wfvae_cli.media.memory import free_memory
from wfvae_cli.models.base import LoadedModel, Task
from wfvae_cli.nn.accelerator import free_device_memory, total_device_memory
from wfvae_cli.nn.stream import Stream
from wfvae_cli.pipeline.options import Tile
from wfvae_cli.pipeline.tiles import Grid, check_tile

_GIB = 2**30
_DEVICE_BUDGET = 16 * _GIB
"""Bytes that a chunk may take at its peak on an accelerator, and more on a large one."""
_DEVICE_SHARE = 0.4
"""Share of an accelerator's memory that a chunk may take: half of a plan's, since the first chunk
is longer, and another model may be loaded. On 80 GB that is two latent frames of WF-VAE-L at 1080p
in bfloat16, where 16 GiB hold one."""
_HOST_BUDGET = 2 * _GIB
"""Bytes that a chunk may take on a CPU; larger chunks are no faster. Outputs of earlier versions
were cut for the same budget: changing it changes the bytes of resumed runs."""
_MOST_LATENTS = 8
"""Latent frames of the longest chunk: longer ones are no faster."""
_SHARE = 0.8
"""Share of the free memory that a plan may take: estimates are rough, and other processes run."""
_TILES = (1024, 768, 512, 384, 256)
"""Tile sides in pixels that `--tile auto` tries. Smaller ones are less exact, and overlap more."""
_BLENDED = 12.0
"""float32 values for each pixel of a frame while tiles are blended."""
_OWN_BLENDED = 16.0
"""Values for each pixel of a frame while a network blends tiles of its own, all at once."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a plan may count on."""

    free: int
    """On the model's device."""
    host: int | None = None
    """In the system, where state of a device can be offloaded to; None on the CPU."""

    @property
    def offload_room(self) -> float:
        """Bytes that offloaded state may take on the host."""
        return _SHARE * (self.host or 0)

    @classmethod
    def now(cls, device: torch.device) -> Memory:
        """Ask for what is free at the moment."""
        host, own = free_memory(), free_device_memory(device)
        return cls(host) if own is None else cls(own, host)


@dataclass(frozen=True)
class ChunkPlan:
    """Chunks of a clip in time, and its row bands or tiles where memory is short."""

    first: int
    """Latent frames of the first chunk."""
    later: int
    """Latent frames of each of the later chunks."""
    row_bands: int = 1
    """Row bands in which the model's largest layers run: exact."""
    tile: int | None = None
    """Pixels of the side of overlapping tiles: not exact. None for the whole picture."""
    offloaded: bool = False
    """True where bands and tiles keep their state on the host until their turn."""
    is_reduced: bool = field(default=False, compare=False)
    """True where the free memory was below the fixed budget."""
    growth: int = field(default=0, compare=False)
    """Bytes that the model's state of a clip grows by with every latent frame."""

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
        """Plan chunks of `--chunk` frames, or of as many as suit the resolution.

        Where memory is short, the first of these that fits: shorter chunks (unless `chunk` is
        given), chunks in row bands, chunks in tiles (if `tile` allows that).

        Args:
            model: the model that the chunks will go through.
            chunk: frames of the first chunk, `1 + k*stride` (any number for an image model);
                None suits the resolution.
            width: pixels of a frame.
            height: pixels of a frame.
            tile: pixels of a tile's side, or whether there may be tiles.
            task: which halves of the model keep state of a clip.
            memory: the available memory; None asks the device.

        Raises:
            UsageError: the model cannot be run in such chunks or tiles.
        """
        check_tile(tile, model.vae.strides)
        memory = memory or Memory.now(model.device)
        picture = Picture(model, width, height, task)
        plan = cls._for_memory(picture, chunk, tile, memory)
        return replace(plan, growth=picture.growth)

    @classmethod
    def _for_memory(
        cls, picture: Picture, chunk: int | None, tile: Tile, memory: Memory
    ) -> ChunkPlan:
        model, width, height = picture.model, picture.width, picture.height
        if isinstance(tile, int) and picture.grid(tile).tiles > 1:
            plan = cls._in_time(model, chunk, min(tile, width) * min(tile, height))
            plan = replace(plan, tile=tile)
            return replace(plan, offloaded=not picture.fits(plan, memory))
        plan = cls._in_time(model, chunk, width * height)
        if model.vae.whole_clip_only is not None:
            return plan
        found = picture.first_that_fits(plan, memory, shorter=chunk is None, tiles=tile == "auto")
        return replace(found, is_reduced=found != plan)

    @classmethod
    def _in_time(cls, model: LoadedModel, chunk: int | None, pixels: int) -> ChunkPlan:
        """Plan chunks of pictures of `pixels`."""
        reason = model.vae.whole_clip_only
        if reason is not None:
            if chunk is not None:
                raise UsageError(
                    f"--chunk {chunk} cannot be used with {model.name}, which takes whole clips "
                    f"only: {reason}; leave --chunk out"
                )
            return cls(sys.maxsize, sys.maxsize)
        stride, unit = model.vae.strides.time, model.vae.chunk_unit
        if chunk is None:
            later = unit * max(1, _default_latents(model, pixels) // unit)
        else:
            later = model.vae.strides.latents_per_chunk(chunk)
        if later % unit:
            raise UsageError(
                f"--chunk {chunk} cannot be used with {model.name}, which takes {stride * unit} "
                f"frames at a time: give 1 + {stride * unit}k frames, such as "
                f"{1 + stride * unit} or {1 + 2 * stride * unit}"
            )
        return cls._of_latents(later, model)

    @classmethod
    def _of_latents(cls, later: int, model: LoadedModel) -> ChunkPlan:
        # To an image model the first frame is like any other.
        return cls(later if model.vae.strides.time == 1 else 1 + later, later)

    @property
    def notices(self) -> list[str]:
        """Messages for the user about this plan."""
        notices = []
        if self.tile is not None:
            notices.append(
                f"in overlapping tiles of {self.tile} pixels: not exact; wfvae bench --precision "
                "says by how much, and --tile off forbids it"
            )
        elif self.is_reduced:
            notices.append(
                f"memory is short: {self.describe()}; the result is the same to rounding"
            )
        if self.growth:
            notices.append(
                "this model keeps state of all of a clip's latent frames: some "
                f"{self.growth / 2**20:.1f} MiB more for each"
            )
        return notices

    def describe(self) -> str:
        """Say what it is, as headers record it."""
        parts = [f"chunks of {self.later} latent frames"]
        if self.row_bands > 1:
            parts.append(f"{self.row_bands} row bands")
        if self.tile is not None:
            parts.append(f"tiles of {self.tile} pixels")
        return ", ".join(parts)

    def stream(self) -> Stream:
        """Begin a clip."""
        return Stream(row_bands=self.row_bands, offloaded=self.offloaded)

    def cuts(self, total: int) -> Iterator[tuple[int, int]]:
        """Give begin and end of every chunk of `total` latent frames."""
        begin, size = 0, self.first
        while begin < total:
            yield begin, min(begin + size, total)
            begin, size = begin + size, self.later


@dataclass(frozen=True)
class Picture:
    """Memory estimates of a model for frames of one size."""

    model: LoadedModel
    width: int
    height: int
    task: Task = "both"

    @property
    def growth(self) -> int:
        """Bytes that state grows by with every latent frame, in the halves that are used."""
        vae = self.model.vae
        width, height = vae.strides.padded_size(self.width, self.height)
        positions = (height // vae.strides.height) * (width // vae.strides.width)
        numbers = vae.state_growth_per_latent * positions * (2 if self.task == "both" else 1)
        return numbers * self.model.value_bytes

    def grid(self, tile: int) -> Grid:
        """Lay tiles over the padded picture."""
        strides = self.model.vae.strides
        width, height = strides.padded_size(self.width, self.height)
        return Grid.of(height, width, tile, strides)

    def first_that_fits(
        self, plan: ChunkPlan, memory: Memory, *, shorter: bool, tiles: bool
    ) -> ChunkPlan:
        """Give the exact `plan`, or what takes its place where it does not fit.

        Where nothing does, it is what the device lacks least for: the estimate may be too high,
        and a device that runs out says so. For the host, see `check_memory`.
        """
        lengths = [plan]
        if shorter:
            unit = self.model.vae.chunk_unit
            lengths += [
                ChunkPlan._of_latents(latents, self.model)
                for latents in range(plan.later - unit, 0, -unit)
            ]
        candidates = [*lengths, *self._in_row_bands(lengths[-1])]
        if tiles:
            candidates += self._in_tiles(lengths[-1])
        for candidate in candidates:
            if self.fits(candidate, memory):
                return candidate
        needs = [(self.needs(candidate, memory), candidate) for candidate in candidates]
        possible = [need for need in needs if need[0][1] <= memory.offload_room]
        return min(possible, key=lambda need: need[0][0])[1]

    def fits(self, plan: ChunkPlan, memory: Memory) -> bool:
        """Tell whether device and host have room for a plan."""
        device, host = self.needs(plan, memory)
        return device <= _SHARE * memory.free and host <= memory.offload_room

    def needs(self, plan: ChunkPlan, memory: Memory) -> tuple[float, float]:
        """Estimate bytes at the peak: on the device, and of state offloaded to the host."""
        vae = self.model.vae
        frames = vae.strides.frames_of(plan.first)
        working, state, outside = vae.peak_values_per_pixel * frames, 0.0, 0.0
        if vae.own_tile is not None:
            width, height = vae.strides.padded_size(self.width, self.height)
            pixels = frames * width * height
            values = vae.peak_values_per_pixel * min(pixels, vae.own_tile) + _OWN_BLENDED * pixels
            working = values / (self.width * self.height)
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
        """Give the plan in ever more bands, none lower than the halos beside it."""
        footprint = self.model.vae.footprint
        if footprint is None:
            return
        for bands in range(2, self.height // (2 * footprint.halo) + 1):
            for offloaded in (False, True):
                yield replace(plan, row_bands=bands, offloaded=offloaded)

    def _in_tiles(self, plan: ChunkPlan) -> Iterator[ChunkPlan]:
        """Give the plan in ever smaller tiles."""
        for tile in _TILES:
            if self.grid(tile).tiles > 1:
                for offloaded in (False, True):
                    yield replace(plan, tile=tile, offloaded=offloaded)


def _default_latents(model: LoadedModel, pixels: int) -> int:
    """Latent frames a chunk for frames of `pixels`, from the fixed budget."""
    frames = _budget(model.device) / (model.vae.peak_values_per_pixel * model.value_bytes * pixels)
    return max(1, min(_MOST_LATENTS, int((frames - 1) // model.vae.strides.time)))


def _budget(device: torch.device) -> float:
    """Bytes that a chunk may take at its peak."""
    if device.type == "cpu":
        return _HOST_BUDGET
    return max(_DEVICE_BUDGET, _DEVICE_SHARE * (total_device_memory(device) or 0))


def check_memory(
    model: LoadedModel, plan: ChunkPlan, frames: int, width: int, height: int, task: Task = "both"
) -> None:
    """Refuse a chunk that would take all of this machine's memory, and the process with it.

    On a CUDA device running out is an error like any other; the system's memory has no such
    mercy.

    Args:
        model: the model that the chunk will go through.
        plan: chunks and tiles of the clip.
        frames: of the chunk.
        width: pixels of a frame.
        height: pixels of a frame.
        task: which halves of the model it goes through.

    Raises:
        DeviceError: it is too large.
    """
    if model.device.type != "cpu":
        return
    cut = replace(plan, first=model.vae.strides.latent_frames(frames))
    available = free_memory()
    needed, _ = Picture(model, width, height, task).needs(cut, Memory(available))
    if needed > available:
        raise DeviceError(
            f"{frames} frames of {width}x{height} need about {needed / _GIB:.1f} GiB, and "
            f"{available / _GIB:.1f} GiB are free: use a smaller --size, --chunk or --tile"
        )
