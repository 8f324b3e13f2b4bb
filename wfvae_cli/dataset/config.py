"""What an output is made by: everything that decides its bytes, and how two of these differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from wfvae_cli.dataset.items import Item
from wfvae_cli.errors import UsageError
from wfvae_cli.media.options import Sampling
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.pipeline.batch import Batch
from wfvae_cli.pipeline.encode import EncodeOptions

Layout = Literal["wfvae", "musubi"]
"""`wfvae`: the latent files of this project. `musubi`: what musubi-tuner reads."""

WEIGHTS = "model_sha256"
"""The option that the weights' hash is compared as."""


@dataclass(frozen=True)
class ModelFingerprint:
    """The model that a worker runs, as far as bytes depend on it."""

    model_sha256: str
    compute_dtype: str
    threads: int | None
    """Cores that the CPU computes with, which changes the rounding; None on other devices."""
    compiled: bool = False
    """Whether its chunks are compiled, which changes the rounding, too."""

    @classmethod
    def of(cls, model: LoadedModel, threads: int) -> ModelFingerprint:
        """What `model` computes in, and with."""
        used = threads if model.device.type == "cpu" else None
        return cls(model.sha256, model.compute_dtype, used, model.vae.compiled is not None)


@dataclass(frozen=True)
class EncodeConfig:
    """How every clip of a dataset is encoded."""

    options: EncodeOptions = field(default_factory=EncodeOptions)
    sampling: Sampling = field(default_factory=Sampling)
    batch: Batch = 1
    layout: Layout = "wfvae"

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.batch != "auto" and not 1 <= self.batch <= 4096:
            raise UsageError(f"expected a batch of 1 to 4096 or auto, got {self.batch}")
        if self.batch != 1 and isinstance(self.options.tile, int):
            raise UsageError("--tile takes clips one by one: leave --batch out")
        if self.layout == "musubi":
            self._check_musubi()

    def _check_musubi(self) -> None:
        if self.options.posterior != "mean":
            raise UsageError(
                "--layout musubi stores the normalised mean: leave --posterior "
                f"{self.options.posterior} out"
            )
        if self.options.normalization is None or self.options.save_dtype != "bfloat16":
            raise UsageError("the musubi layout needs a normalization and bfloat16")

    def sampling_of(self, item: Item) -> Sampling:
        """Which frames of an item to take: its own part of the file, where it names one."""
        return replace(
            self.sampling,
            start=item.start or self.sampling.start,
            duration=self.sampling.duration if item.duration is None else item.duration,
        )

    def options_of(
        self, item: Item, identity: ModelFingerprint, source_sha256: str
    ) -> EncodeOptions:
        """What to keep of an item's posterior, and what its file is to say about its making.

        With one seed for all, every clip of a shape would get the same noise: each has a seed of
        its own, derived from the common one and the item's name.
        """
        extra = {
            "options": json.dumps(self.recorded(item, identity), sort_keys=True),
            "source_sha256": source_sha256,
        }
        return replace(
            self.options, seed=derived_seed(self.options.seed, item.relative), extra=extra
        )

    def recorded(self, item: Item, identity: ModelFingerprint) -> dict[str, str]:
        """Every option that decides an item's bytes, by name; the weights are kept elsewhere."""
        normalization = self.options.normalization
        values: dict[str, object] = {
            **asdict(self.sampling_of(item)),
            "posterior": self.options.posterior,
            "normalization": "none" if normalization is None else normalization.source,
            "save_dtype": self.options.save_dtype,
            "chunk": self.options.chunk or "auto",
            "batch": self.batch,
            "tile": self.options.tile if isinstance(self.options.tile, int) else None,
            "layout": self.layout,
            "compute_dtype": identity.compute_dtype,
        }
        if self.options.posterior == "sample":
            values["seed"] = self.options.seed
        if identity.threads is not None:
            values["threads"] = identity.threads
        if identity.compiled:
            values["compile"] = "on"
        if self.sampling.size is None:
            del values["fit"]
        return {name: str(value) for name, value in values.items() if value is not None}

    def fingerprint(self, item: Item, identity: ModelFingerprint) -> str:
        """16 hexadecimal digits that stand for an item's options and the weights."""
        text = json.dumps(self.recorded(item, identity), sort_keys=True)
        return hashlib.sha256(f"{identity.model_sha256}|{text}".encode()).hexdigest()[:16]


def derived_seed(seed: int, relative: str) -> int:
    """The seed of one item: 0 to 2**63 - 1."""
    digest = hashlib.sha256(f"{seed}:{relative}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def difference(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Name every option that differs, as `posterior: mean, now sample`; empty where none does."""
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))

    def shown(values: Mapping[str, str], name: str) -> str:
        value = values.get(name, "unset")
        return value[:12] if name == WEIGHTS else value

    return "; ".join(f"{name}: {shown(old, name)}, now {shown(new, name)}" for name in names)
