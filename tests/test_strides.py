import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfvae_cli.errors import UsageError
from wfvae_cli.strides import latent_frames, latents_per_chunk, pad_to, padded_frames

STRIDES = st.sampled_from([1, 2, 4, 8])


@given(frames=st.integers(1, 10_000), stride=STRIDES)
def test_padding_reaches_the_next_length_of_the_right_form(frames: int, stride: int) -> None:
    padded = padded_frames(frames, stride)
    assert (padded - 1) % stride == 0
    assert 0 <= padded - frames < stride
    assert (
        latent_frames(frames, stride)
        == latent_frames(padded, stride)
        == 1 + padded // stride - (stride == 1)
    )


@given(size=st.integers(1, 10_000), stride=STRIDES)
def test_pad_to_makes_a_multiple(size: int, stride: int) -> None:
    assert (size + pad_to(size, stride)) % stride == 0
    assert 0 <= pad_to(size, stride) < stride


def test_known_lengths() -> None:
    assert [latent_frames(n, 4) for n in (1, 2, 5, 6, 81, 97)] == [1, 2, 2, 3, 21, 25]


@pytest.mark.parametrize(("chunk", "stride", "latents"), [(5, 4, 1), (17, 4, 4), (33, 8, 4)])
def test_chunks_of_the_right_form(chunk: int, stride: int, latents: int) -> None:
    assert latents_per_chunk(chunk, stride) == latents


@pytest.mark.parametrize("chunk", [1, 2, 8])
def test_chunks_of_an_image_model_are_batches_of_any_size(chunk: int) -> None:
    assert latents_per_chunk(chunk, 1) == chunk
    with pytest.raises(UsageError, match="at least 1 frame, got 0"):
        latents_per_chunk(0, 1)


@pytest.mark.parametrize("chunk", [-3, 0, 1, 4, 16, 18])
def test_other_chunks_are_refused_with_the_nearest(chunk: int) -> None:
    with pytest.raises(UsageError, match=r"1 \+ 4k frames .* got .*; the nearest is \d+"):
        latents_per_chunk(chunk, 4)
