"""The streaming laws, stated once for every family: small seeded models, every chunking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from wfvae_cli.models.base import VideoVAE
from wfvae_cli.nn.stream import Stream

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}
"""In float64 a law holds or is broken: nothing hides in rounding, which a norm over the few
channels of a tiny model makes large."""
Chunks = tuple[int, ...]
"""Latent frames in each chunk of a clip."""


def compositions(total: int) -> Iterator[Chunks]:
    """Every way to cut `total` latent frames into chunks, in order."""
    if total == 0:
        yield ()
    for first in range(1, total + 1):
        for rest in compositions(total - first):
            yield (first, *rest)


def randomise(vae: VideoVAE, seed: int = 0) -> None:
    """Give a model weights that keep values near 1, and make it ready to run in float64."""
    generator = torch.Generator().manual_seed(seed)
    vae.eval().requires_grad_(False).double()
    for name, value in vae.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("bias"):
            value.copy_(0.1 * noise)
        elif name.endswith("gamma") or value.ndim == 1:
            value.copy_(1 + 0.1 * noise)
        else:
            value.copy_(noise / value[0].numel() ** 0.5)


def random_clip(vae: VideoVAE, latents: int, seed: int = 0) -> Tensor:
    """A clip in [-1, 1] that makes `latents` latent frames of 2 x 3 positions."""
    s = vae.strides
    shape = (1, 3, 1 + s.time * (latents - 1), 2 * s.height, 3 * s.width)
    generator = torch.Generator().manual_seed(seed)
    dtype = next(vae.parameters()).dtype
    return torch.rand(shape, generator=generator).to(dtype) * 2 - 1


def frame_cut(vae: VideoVAE, latent: int) -> int:
    """The first frame that belongs to latent frame `latent`."""
    return 0 if latent == 0 else 1 + vae.strides.time * (latent - 1)


def cuts(chunks: Chunks) -> Iterator[tuple[int, int]]:
    """Begin and end of every chunk."""
    return pairwise(accumulate(chunks, initial=0))


def encode_parts(vae: VideoVAE, x: Tensor, chunks: Chunks, stream: Stream) -> Iterator[Tensor]:
    """Encode a clip chunk by chunk; posterior mean and log-variance stacked."""
    for begin, end in cuts(chunks):
        stream.last = end == sum(chunks)
        part = x[:, :, frame_cut(vae, begin) : frame_cut(vae, end)]
        yield torch.cat(vae.encode(part, stream), dim=1)


def decode_parts(vae: VideoVAE, z: Tensor, chunks: Chunks, stream: Stream) -> Iterator[Tensor]:
    """Decode latents chunk by chunk."""
    for begin, end in cuts(chunks):
        stream.last = end == sum(chunks)
        yield vae.decode(z[:, :, begin:end], stream)


def every_chunking(
    run: Callable[[int, int, Stream], Tensor], total: int
) -> Iterator[tuple[Chunks, list[Tensor]]]:
    """Run a clip of `total` latent frames in every chunking; what begins alike is run once.

    Args:
        run: takes begin and end of a chunk in latent frames, and the stream of what came before.
        total: latent frames of the clip.
    """

    def go_on(
        stream: Stream, chunks: Chunks, parts: list[Tensor]
    ) -> Iterator[tuple[Chunks, list[Tensor]]]:
        begin = sum(chunks)
        if begin == total:
            yield chunks, parts
        for end in range(begin + 1, total + 1):
            fork = stream.fork()
            fork.last = end == total
            yield from go_on(fork, (*chunks, end - begin), [*parts, run(begin, end, fork)])

    yield from go_on(Stream(), (), [])


def check_every_chunking(vae: VideoVAE, longest: int) -> None:
    """Chunked is whole, for every length and every chunking up to `longest` latent frames.

    Each latent frame more doubles the time. Five are enough for a chunk of one frame or of more to
    stand behind and before each other kind, and for a steady state with several chunks behind it.
    """
    with torch.inference_mode():
        for latents in range(1, longest + 1):
            x = random_clip(vae, latents, seed=latents)
            moments = torch.cat(vae.encode(x, Stream.whole()), dim=1)
            mean = moments.chunk(2, dim=1)[0]
            frames = vae.decode(mean, Stream.whole())
            assert moments.size(2) == latents
            assert frames.shape == x.shape

            def encode(begin: int, end: int, stream: Stream, x: Tensor = x) -> Tensor:
                part = x[:, :, frame_cut(vae, begin) : frame_cut(vae, end)]
                return torch.cat(vae.encode(part, stream), dim=1)

            def decode(begin: int, end: int, stream: Stream, z: Tensor = mean) -> Tensor:
                return vae.decode(z[:, :, begin:end], stream)

            for chunks, parts in every_chunking(encode, latents):
                assert tuple(part.size(2) for part in parts) == chunks
                difference = (torch.cat(parts, dim=2) - moments).abs().max().item()
                assert difference <= TOLERANCE[x.dtype], f"encoding {chunks}: {difference}"
            count = 0
            for chunks, parts in every_chunking(decode, latents):
                decoded = torch.cat(parts, dim=2)
                assert decoded.shape == frames.shape
                difference = (decoded - frames).abs().max().item()
                assert difference <= TOLERANCE[x.dtype], f"decoding {chunks}: {difference}"
                count += 1
            assert count == 2 ** (latents - 1)


def check_strips(vae: VideoVAE, latents: int = 3, columns: int = 1) -> None:
    """In bands is whole, for every chunking; the picture is higher than a band and its halo."""
    s = vae.strides
    with torch.inference_mode():
        shape = (1, 3, 1 + s.time * (latents - 1), 24 * s.height, columns * s.width)
        x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        x = x.to(next(vae.parameters()).dtype)
        moments = torch.cat(vae.encode(x, Stream.whole()), dim=1)
        mean = moments.chunk(2, dim=1)[0]
        frames = vae.decode(mean, Stream.whole())
        for chunks in compositions(latents):
            stream = Stream(row_bands=2 + len(chunks), offloaded=len(chunks) % 2 == 0)
            parts = list(encode_parts(vae, x, chunks, stream))
            difference = (torch.cat(parts, dim=2) - moments).abs().max().item()
            assert difference <= TOLERANCE[x.dtype], f"encoding {chunks}: {difference}"
            stream = Stream(row_bands=2 + len(chunks))
            decoded = torch.cat(list(decode_parts(vae, mean, chunks, stream)), dim=2)
            assert decoded.shape == frames.shape
            difference = (decoded - frames).abs().max().item()
            assert difference <= TOLERANCE[x.dtype], f"decoding {chunks}: {difference}"


def check_footprint(vae: VideoVAE, latents: int = 2, size: int = 64) -> None:
    """The state that plans count on is what a clip leaves behind, and not much more.

    A decoder that looks ahead needs as many `latents` as it takes to reach its last layer. On the
    meta device models of any size will do.
    """
    assert vae.footprint is not None
    s, weight = vae.strides, next(vae.parameters())
    with torch.inference_mode():
        frames = 1 + s.time * (latents - 1)
        x = torch.zeros(1, 3, frames, size, size, dtype=weight.dtype, device=weight.device)
        encoder, decoder = Stream(), Stream()
        for begin, end in ((0, 1), (1, frames)):
            vae.decode(vae.encode(x[:, :, begin:end], encoder).mean, decoder)
    for kept, promised in (
        (encoder.nbytes, vae.footprint.encoder_state),
        (decoder.nbytes, vae.footprint.decoder_state),
    ):
        values = kept / x.element_size() / size**2
        assert values <= promised
        assert promised == 0 or values > promised / 2


def check_interleaving(vae: VideoVAE) -> None:
    """Two clips that take turns on one model do not hear of each other."""
    chunks = (2, 1, 2)
    with torch.inference_mode():
        clips = [random_clip(vae, sum(chunks), seed) for seed in (1, 2)]
        alone = [list(encode_parts(vae, x, chunks, Stream())) for x in clips]
        streams = [encode_parts(vae, x, chunks, Stream()) for x in clips]
        for step in range(len(chunks)):
            for turn, stream in enumerate(streams):
                assert torch.equal(next(stream), alone[turn][step])
        latents = [torch.cat(parts, dim=2).chunk(2, dim=1)[0] for parts in alone]
        decoded = [list(decode_parts(vae, z, chunks, Stream())) for z in latents]
        decoders = [decode_parts(vae, z, chunks, Stream()) for z in latents]
        for step in range(len(chunks)):
            for turn, decoder in enumerate(decoders):
                assert torch.equal(next(decoder), decoded[turn][step])


def check_batch(vae: VideoVAE) -> None:
    """Clips that go through one stream side by side give what each gives alone."""
    chunks = (2, 1, 2)
    with torch.inference_mode():
        clips = torch.cat([random_clip(vae, sum(chunks), seed) for seed in (1, 2, 3)])
        together = torch.cat(list(encode_parts(vae, clips, chunks, Stream())), dim=2)
        latents = together.chunk(2, dim=1)[0]
        decoded = torch.cat(list(decode_parts(vae, latents, chunks, Stream())), dim=2)
        check_rejoined(vae, clips, chunks[:2])
        for i in range(3):
            alone = torch.cat(list(encode_parts(vae, clips[i : i + 1], chunks, Stream())), dim=2)
            assert (alone - together[i : i + 1]).abs().max() <= TOLERANCE[clips.dtype]
            back = decode_parts(vae, latents[i : i + 1], chunks, Stream())
            difference = torch.cat(list(back), dim=2) - decoded[i : i + 1]
            assert difference.abs().max() <= TOLERANCE[clips.dtype]


def check_rejoined(vae: VideoVAE, clips: Tensor, chunks: tuple[int, int]) -> None:
    """A batch's stream that was split and joined anew, in another order, goes on as it was."""
    middle, end = (frame_cut(vae, latents) for latents in (chunks[0], sum(chunks)))
    order = [2, 0, 1]
    stream = Stream()
    vae.encode(clips[:, :, :middle], stream)
    parts = stream.split(len(clips))
    rejoined = Stream.join([parts[i] for i in order])
    expected = vae.encode(clips[:, :, middle:end], stream).mean[order]
    found = vae.encode(clips[order, :, middle:end], rejoined).mean
    assert (found - expected).abs().max() <= TOLERANCE[clips.dtype]


def check_causality(vae: VideoVAE) -> None:
    """What comes later never changes what a latent frame says."""
    with torch.inference_mode():
        x = random_clip(vae, 5)
        changed = x.clone()
        changed[:, :, frame_cut(vae, 3) :] *= -1
        a, b = (vae.encode(clip, Stream.whole()).mean for clip in (x, changed))
        assert (a[:, :, :3] - b[:, :, :3]).abs().max() <= TOLERANCE[x.dtype]
        assert (a[:, :, 3:] - b[:, :, 3:]).abs().max() > 1e-2
