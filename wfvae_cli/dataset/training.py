"""Reading encoded datasets for training, as a `torch.utils.data.Dataset`."""

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
    """The latent file's path below the dataset, or the item's name in a shard."""
    frames: int
    """Frames of the clip, padding left out."""
    caption: str
    """Caption of the clip; empty where it has none."""
    columns: dict[str, Any]
    """Columns that were asked for, by name."""


@dataclass(frozen=True)
class TarMember:
    """Location of latents: a file, or bytes of a tar shard."""

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
        frames: latent frames of a window at a random start in each clip; all by default.
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
        self._entries = _find(os.fspath(source))
        self._frames, self._seed, self._epoch = frames, seed, 0
        self._columns = tuple(columns)
        self._from_header = os.fspath(normalize) == "header"
        self._normalization: Normalization | None = None
        if not self._from_header and os.fspath(normalize) != "none":
            self._normalization = self._read_stats(Path(normalize))
        if frames is not None:
            self._entries = [entry for entry in self._entries if _length(entry) >= frames]
            if not self._entries:
                raise InputError(f"{os.fspath(source)}: no clip has {frames} latent frames")

    def set_epoch(self, epoch: int) -> None:
        """Draw other windows and samples; call it before the workers of an epoch start."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Number of clips."""
        return len(self._entries)

    def __getitem__(self, index: int) -> LatentSample:
        """Read a clip, or a window of it.

        Where the posterior's moments are stored, the latents are a sample of it; the noise
        depends on the seed, the epoch and the clip alone, on no worker.

        Raises:
            LatentError: its file is damaged, or `normalize` is `header` and it is not normalised.
            InputError: it lacks a column.
        """
        entry = self._entries[index]
        text = f"{self._seed}:{self._epoch}:{entry.item}"
        generator = torch.Generator().manual_seed(_seed_of(text))
        with _open(entry) as file:
            start, stop = self._window(file.latent_frames, generator)
            latents = file.read(start, stop).float()
            if file.has_logvar:
                deviation = torch.exp(0.5 * file.read_logvar(start, stop).float())
                latents = latents + deviation * torch.randn(latents.shape, generator=generator)
            latents = self._normalized(latents, file.metadata, entry)
            return {
                "latents": latents,
                "item": entry.item,
                "frames": file.metadata.frames,
                "caption": file.metadata.extra.get("caption", ""),
                "columns": self._columns_of(file.metadata, entry),
            }

    def _columns_of(self, metadata: LatentMetadata, entry: TarMember) -> dict[str, Any]:
        if not self._columns:
            return {}
        stored: dict[str, Any] = json.loads(metadata.extra.get("columns", "{}"))
        missing = [name for name in self._columns if name not in stored]
        if missing:
            raise InputError(
                f"{entry.path}, {entry.item}: has no column {missing[0]!r}; it has "
                f"{', '.join(sorted(stored)) or 'none'}"
            )
        return {name: stored[name] for name in self._columns}

    def _window(self, length: int, generator: torch.Generator) -> tuple[int, int]:
        if self._frames is None:
            return 0, length
        start = int(torch.randint(length - self._frames + 1, (), generator=generator))
        return start, start + self._frames

    def _normalized(self, latents: Tensor, metadata: LatentMetadata, entry: TarMember) -> Tensor:
        applied = metadata.normalization
        if self._from_header:
            if applied is None:
                raise LatentError(
                    f"{entry.path}: holds the model's own latents, not normalised ones: encode "
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

        with _open(self._entries[0]) as file:
            sha256 = file.metadata.model_sha256
        stored = load_normalization(path, model_sha256=sha256)
        return Normalization(tuple(stored.shift), tuple(stored.scale))


def _seed_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8]) >> 1


def _open(entry: TarMember) -> LatentFile:
    if entry.size is None:
        return LatentFile(entry.path)
    try:
        with Path(entry.path).open("rb") as file:
            file.seek(entry.begin)
            return LatentFile(_Member(entry, file.read(entry.size)))
    except LatentError:
        raise
    except OSError as error:
        raise LatentError(f"{entry.path}: {error.strerror or error}") from error


class _Member(io.BytesIO):
    """A latent file from a shard, with a name for messages."""

    def __init__(self, entry: TarMember, data: bytes) -> None:
        super().__init__(data)
        self.name = f"{entry.path}, {entry.item}"


def _length(entry: TarMember) -> int:
    with _open(entry) as file:
        return file.latent_frames


def _find(source: str) -> list[TarMember]:
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
    entries = [TarMember(str(path), str(path.relative_to(folder))) for path in files]
    entries += [entry for tar in tars for entry in tar_members(tar)]
    _refuse_twice(entries)
    if not entries:
        raise InputError(
            f"{source}: expected latent files (.safetensors) or shards of them (.tar), found none"
        )
    return entries


def _refuse_twice(entries: Iterable[TarMember]) -> None:
    """Refuse a folder that holds a clip in two shards, or in a shard and as a file."""
    seen: dict[tuple[str, str], str] = {}
    for entry in entries:
        if entry.size is None:
            folder, item = entry.path.removesuffix(entry.item), entry.item.removesuffix(_SUFFIX)
        else:
            folder, item = entry.path.removesuffix(Path(entry.path).name), entry.item
        other = seen.setdefault((folder, item), entry.path)
        if other != entry.path:
            raise LatentError(
                f"{other} and {entry.path} both hold {item}: two runs wrote into one folder, or a "
                "shard's index is damaged; remove what is not wanted"
            )


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def verify_shard(path: Path) -> None:
    """Read a tar shard, and check each clip against its checksum.

    Raises:
        LatentError: a clip is missing, damaged, or not what its checksum was taken of.
    """
    for entry in tar_members(path):
        with _open(entry) as file:
            file.verify()


def tar_members(path: Path, suffix: str = ".safetensors") -> list[TarMember]:
    """List the latents of a shard by its headers alone, and compare them with its index.

    Args:
        path: of the shard.
        suffix: of the members that hold latents.

    Raises:
        LatentError: it is no tar file, a header in it is damaged, or clips are missing.
    """
    entries = []
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as box:
            for member in box:
                if member.offset_data + member.size > size:
                    raise LatentError(f"{path}: truncated within {member.name}: copy it again")
                if member.name.endswith(suffix):
                    key = member.name.removesuffix(suffix)
                    name = key.replace("%2E", ".").replace("%25", "%")
                    entries.append(TarMember(str(path), name, member.offset_data, member.size))
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
    if not entries and suffix == ".safetensors" and _is_energon(path):
        raise LatentError(
            f"{path}: a shard for Energon, whose clips are .pth: make latent files of them first, "
            "with wfvae convert-cache FROM -o TO --format files"
        )
    missing = _expected(path) - {entry.item for entry in entries}
    if missing:
        raise LatentError(
            f"{path}: its index lists {len(missing)} clips that are not in it, such as "
            f"{min(missing)}: copy the shard again, or encode its clips again"
        )
    return entries


def _is_energon(path: Path) -> bool:
    """Return True where the members of a tar are tensors for Energon."""
    with tarfile.open(path, "r:") as tar:
        return any(member.name.endswith(".pth") for member in tar)


def _expected(path: Path) -> set[str]:
    """The clips of a shard by the index beside it; none where there is no index."""
    from wfvae_cli.dataset.exporters.shard_index import listed_clips

    return listed_clips(path.with_name(f"{path.stem.rpartition('-')[0]}.json"), path.name)
