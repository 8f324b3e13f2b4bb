"""A model as the statistics need it: clips in, posteriors out, nothing written."""

from __future__ import annotations

from wfvae_cli.codec.encode import encode_chunks
from wfvae_cli.codec.plan import ChunkPlan
from wfvae_cli.codec.threads import consumed
from wfvae_cli.media.reader import ClipReader
from wfvae_cli.models.base import LoadedModel, Posterior
from wfvae_cli.stats.accumulate import ClipStats
from wfvae_cli.stats.measure import Encoder
from wfvae_cli.stats.report import ModelIdentity


def stats_encoder(model: LoadedModel, chunk: int | None = None) -> Encoder:
    """Make what `stats.measure` encodes videos and images with.

    Reading, the model and the statistics each run in a thread of their own.

    Args:
        model: from `load_model`.
        chunk: frames of a clip's first chunk, `1 + k*stride`; None suits the resolution.

    Raises:
        UsageError: the model cannot be run in such chunks.
    """
    ChunkPlan.of(model, chunk, model.vae.strides.width, model.vae.strides.height)

    def feed(reader: ClipReader, clip: ClipStats) -> None:
        plan = ChunkPlan.of(model, chunk, reader.info.width, reader.info.height, task="encode")

        def take(posterior: Posterior) -> None:
            clip.update(posterior.mean[0], posterior.logvar[0])

        with consumed(take) as give:
            for encoded in encode_chunks(reader, model, plan):
                give(encoded.posterior)

    identity = ModelIdentity(model.name, model.sha256, model.vae.family)
    return Encoder(identity, model.compute_dtype, feed)
