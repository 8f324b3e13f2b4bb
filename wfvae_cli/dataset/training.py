"""Encoded datasets as a trainer reads them."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wfvae_cli.errors import InputError, LatentError, UsageError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.latents.metadata import LatentMetadata
from wfvae_cli.latents.normalization import Normalization

_SUFFIX = ".safetensors"


class LatentSample(TypedDict):
    """One clip."""

    latents: Tensor
    """`[Z, T', H', W']`, float32."""
    item: str
    """Its name: the latent file's path below the dataset, or the item's name in a shard."""
    frames: int
    """Frames of the clip, padding left out."""
    caption: str
    """Empty where it has none."""
    columns: dict[str, Any]
    """Those that were asked for."""


@dataclass(frozen=True)
class _Place:
    """Where a latent file lies: a file, or bytes of a tar shard."""

    path: str
    item: str
    begin: int = 0
    size: int | None = None


class LatentDataset(Dataset[LatentSample]):
    """Clips that `wfvae encode` wrote: latent files of a folder, or the tar shards in it.

    Sizes differ where the clips' do: `DataLoader(..., batch_size=None)` gives clip by clip, and
    batches need clips of one size (`encode --size --frames`). Forked and spawned workers each
    open their own files.

    Example:
        dataset = LatentDataset("latents", normalize="stats.json")
        for batch in torch.utils.data.DataLoader(dataset, batch_size=8, num_workers=4):
            loss = train(batch["latents"])

    Args:
        source: a folder of latent files, searched recursively; a folder of tar shards; or a glob
            of either.
        normalize: what normalised latents are computed by: a file of `wfvae stats`; `header`,
            where `encode --normalize` has done it already; or `none`, which gives the model's
            own latents, whatever was stored.
        frames: latent frames of a window at a random place in each clip; all by default.
            Shorter clips are left out.
        seed: of windows and samples. Each epoch differs: see `set_epoch`.
        columns: of the dataset's manifest or sidecars, to be given with each clip.

    Raises:
        InputError: there are no latents, or the statistics are unusable.
        LatentError: a file is damaged.
        UsageError: `normalize` or `frames` have no meaning.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        normalize: str | os.PathLike[str] = "none",
        frames: int | None = None,
        seed: int = 0,
        columns: Sequence[str] = (),
    ) -> None:
        if frames is not None and frames < 1:
            raise UsageError(f"frames must be at least 1, got {frames}")
        self._places = _find(os.fspath(source))
        self._frames, self._seed, self._epoch = frames, seed, 0
        self._columns = tuple(columns)
        self._from_header = os.fspath(normalize) == "header"
        self._normalization: Normalization | None = None
        if not self._from_header and os.fspath(normalize) != "none":
            self._normalization = self._read_stats(Path(normalize))
        if frames is not None:
            self._places = [place for place in self._places if _length(place) >= frames]
            if not self._places:
                raise InputError(f"{os.fspath(source)}: no clip has {frames} latent frames")

    def set_epoch(self, epoch: int) -> None:
        """Draw other windows and samples; call it before the workers of an epoch start."""
        self._epoch = epoch

    def __len__(self) -> int:
        """How many clips there are."""
        return len(self._places)

    def __getitem__(self, index: int) -> LatentSample:
        """Read a clip, or a window of it.

        Where the posterior's moments are stored, the latents are a sample of it; the noise
        depends on the seed, the epoch and the clip alone, on no worker.

        Raises:
            LatentError: its file is damaged, or `normalize` is `header` and it is not normalised.
            InputError: it lacks a column.
        """
        place = self._places[index]
        text = f"{self._seed}:{self._epoch}:{place.item}"
        generator = torch.Generator().manual_seed(_seed_of(text))
        with _open(place) as file:
            start, stop = self._window(file.latent_frames, generator)
            latents = file.read(start, stop).float()
            if file.has_logvar:
                deviation = torch.exp(0.5 * file.read_logvar(start, stop).float())
                latents = latents + deviation * torch.randn(latents.shape, generator=generator)
            latents = self._normalized(latents, file.metadata, place)
            return {
                "latents": latents,
                "item": place.item,
                "frames": file.metadata.frames,
                "caption": file.metadata.extra.get("caption", ""),
                "columns": self._columns_of(file.metadata, place),
            }

    def _columns_of(self, metadata: LatentMetadata, place: _Place) -> dict[str, Any]:
        if not self._columns:
            return {}
        there: dict[str, Any] = json.loads(metadata.extra.get("columns", "{}"))
        missing = [name for name in self._columns if name not in there]
        if missing:
            raise InputError(
                f"{place.path}, {place.item}: has no column {missing[0]!r}; it has "
                f"{', '.join(sorted(there)) or 'none'}"
            )
        return {name: there[name] for name in self._columns}

    def _window(self, length: int, generator: torch.Generator) -> tuple[int, int]:
        if self._frames is None:
            return 0, length
        start = int(torch.randint(length - self._frames + 1, (), generator=generator))
        return start, start + self._frames

    def _normalized(self, latents: Tensor, metadata: LatentMetadata, place: _Place) -> Tensor:
        applied = metadata.normalization
        if self._from_header:
            if applied is None:
                raise LatentError(
                    f"{place.path}: holds the model's own latents, not normalised ones: encode "
                    "with --normalize, or give a file of wfvae stats"
                )
            return latents
        if applied is not None:
            latents = applied.undo(latents)
        if self._normalization is not None:
            latents = self._normalization.apply(latents)
        return latents

    def _read_stats(self, path: Path) -> Normalization:
        from wfvae_cli.stats.scale import load_normalization

        with _open(self._places[0]) as file:
            sha256 = file.metadata.model_sha256
        stored = load_normalization(path, model_sha256=sha256)
        return Normalization(tuple(stored.shift), tuple(stored.scale))


def _seed_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8]) >> 1


def _open(place: _Place) -> LatentFile:
    if place.size is None:
        return LatentFile(place.path)
    try:
        with Path(place.path).open("rb") as file:
            file.seek(place.begin)
            return LatentFile(_Member(place, file.read(place.size)))
    except LatentError:
        raise
    except OSError as error:
        raise LatentError(f"{place.path}: {error.strerror or error}") from error


class _Member(io.BytesIO):
    """A latent file from a shard, with a name for messages."""

    def __init__(self, place: _Place, data: bytes) -> None:
        super().__init__(data)
        self.name = f"{place.path}, {place.item}"


def _length(place: _Place) -> int:
    with _open(place) as file:
        return file.latent_frames


def _find(source: str) -> list[_Place]:
    """Every latent file, in order of its name; of shards in the order in which they hold them."""
    folder = Path(source)
    if folder.is_dir():
        files = sorted(p for p in folder.rglob("*.safetensors") if not _is_hidden(p, folder))
        tars = sorted(folder.glob("*.tar"))
    else:
        found = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 (an absolute pattern, too)
        folder = Path(os.path.commonpath(found)) if len(found) > 1 else folder.parent
        files = [Path(name) for name in found if name.endswith(".safetensors")]
        tars = [Path(name) for name in found if name.endswith(".tar")]
    places = [_Place(str(path), str(path.relative_to(folder))) for path in files]
    places += [place for tar in tars for place in tar_members(tar)]
    _refuse_twice(places)
    if not places:
        raise InputError(
            f"{source}: expected latent files (.safetensors) or shards of them (.tar), found none"
        )
    return places


def _refuse_twice(places: Iterable[_Place]) -> None:
    """Refuse a folder that holds a clip in two shards, or in a shard and as a file."""
    seen: dict[tuple[str, str], str] = {}
    for place in places:
        if place.size is None:
            folder, item = place.path.removesuffix(place.item), place.item.removesuffix(_SUFFIX)
        else:
            folder, item = place.path.removesuffix(Path(place.path).name), place.item
        other = seen.setdefault((folder, item), place.path)
        if other != place.path:
            raise LatentError(
                f"{other} and {place.path} both hold {item}: two runs wrote into one folder, or a "
                "shard's index is damaged; remove what is not wanted"
            )


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def verify_shard(path: Path) -> None:
    """Read all of a tar shard.

    Raises:
        LatentError: a clip is missing, damaged, or not what its checksum was taken of.
    """
    for place in tar_members(path):
        with _open(place) as file:
            file.verify()


def tar_members(path: Path) -> list[_Place]:
    """The latent files of a shard, found by its headers alone, and compared with its index.

    Raises:
        LatentError: it is no tar file, a header in it is damaged, or clips are missing.
    """
    places = []
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as box:
            for member in box:
                if member.offset_data + member.size > size:
                    raise LatentError(f"{path}: truncated within {member.name}: copy it again")
                if member.name.endswith(".safetensors"):
                    key = member.name.removesuffix(".safetensors")
                    name = key.replace("%2E", ".").replace("%25", "%")
                    places.append(_Place(str(path), name, member.offset_data, member.size))
            end = box.offset
        with path.open("rb") as file:  # tarfile ends at a header that it cannot read
            file.seek(end)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise LatentError(
                    f"{path}: the header at byte {end} is damaged, and what follows it cannot be "
                    "found: copy the shard again, or encode its clips again"
                )
    except LatentError:
        raise
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise LatentError(f"{path}: damaged, not a tar shard: {error}") from error
    missing = _expected(path) - {place.item for place in places}
    if missing:
        raise LatentError(
            f"{path}: its index lists {len(missing)} clips that are not in it, such as "
            f"{min(missing)}: copy the shard again, or encode its clips again"
        )
    return places


def _expected(path: Path) -> set[str]:
    """The clips of a shard by the index beside it; none where there is no index."""
    from wfvae_cli.dataset.exporters.webdataset import listed_clips

    return listed_clips(path.with_name(f"{path.stem.rpartition('-')[0]}.json"), path.name)
