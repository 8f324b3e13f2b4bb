import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfvae_cli.errors import UsageError
from wfvae_cli.strides import ClipLengths, Progression, Strides

TIMES = st.sampled_from([1, 2, 4, 8])
LENGTHS = st.integers(1, 10_000)
PROGRESSIONS = st.builds(Progression, st.integers(1, 40), st.integers(1, 40))
ALLEGRO = ClipLengths(Progression(24, 16), Progression(6, 4))
MINIMAX = ClipLengths(Progression(22, 17), Progression(7, 5))


@given(frames=LENGTHS, time=TIMES)
def test_padding_reaches_the_next_length_of_the_right_form(frames: int, time: int) -> None:
    strides = Strides(time, 8, 8)
    padded = strides.padded_frames(frames)
    assert (padded - 1) % time == 0
    assert 0 <= padded - frames < time
    latents = strides.latent_frames(frames)
    assert latents == strides.latent_frames(padded) == 1 + padded // time - (time == 1)
    assert strides.frames_of(latents) == padded


@given(width=LENGTHS, height=LENGTHS, stride=TIMES)
def test_sizes_are_padded_to_multiples(width: int, height: int, stride: int) -> None:
    padded = Strides(4, 2 * stride, stride).padded_size(width, height)
    assert padded[0] % stride == padded[1] % (2 * stride) == 0
    assert 0 <= padded[0] - width < stride
    assert 0 <= padded[1] - height < 2 * stride


def test_known_lengths() -> None:
    strides = Strides(4, 8, 8)
    assert [strides.latent_frames(n) for n in (1, 2, 5, 6, 81, 97)] == [1, 2, 2, 3, 21, 25]


@pytest.mark.parametrize(
    ("clips", "frames", "padded", "latents"),
    [
        (ALLEGRO, 1, 24, 6),
        (ALLEGRO, 24, 24, 6),
        (ALLEGRO, 25, 40, 10),
        (ALLEGRO, 88, 88, 22),
        (MINIMAX, 1, 22, 7),
        (MINIMAX, 23, 39, 12),
        (MINIMAX, 73, 73, 22),
    ],
)
def test_known_lengths_of_models_that_are_not_causal(
    clips: ClipLengths, frames: int, padded: int, latents: int
) -> None:
    strides = Strides(4, 8, 8, clips)
    assert strides.padded_frames(frames) == padded
    assert strides.latent_frames(frames) == strides.latent_frames(padded) == latents
    assert strides.frames_of(latents) == padded


@given(lengths=PROGRESSIONS, length=LENGTHS)
def test_a_progression_holds_and_nears_every_length(lengths: Progression, length: int) -> None:
    known = [lengths.at(k) for k in range(length // lengths.step + 2)]
    assert lengths.holding(length) == next(each for each in known if each >= length)
    assert abs(lengths.nearest(length) - length) == min(abs(each - length) for each in known)
    assert (length in lengths) == (length in known)
    assert Progression.parse(str(lengths)) == lengths


def test_of_two_lengths_as_near_the_longer_one_is_taken() -> None:
    assert Strides(4, 8, 8).nearest(12, 20, 7) == (16, 24, 9)
    assert Strides(4, 8, 8).nearest(1, 3, 1) == (8, 8, 1)


def test_strides_say_what_they_take() -> None:
    plain = Strides(4, 8, 16)
    assert (str(plain), plain.sizes_form) == ("4x8x16", "multiples of 16x8")
    assert plain.to_json() == {"time": 4, "height": 8, "width": 16}
    assert Strides(1, 8, 8).lengths.frames.form == "any number of"
    tiled = Strides(4, 8, 16, ALLEGRO, Progression(320, 200), Progression(320, 240))
    assert str(tiled) == "4x8x16"
    assert tiled.sizes_form == "(320 + 240k)x(320 + 200k)"
    assert tiled.to_json()["clip_frames"] == tiled.lengths.frames.form == "24 + 16k"
    assert tiled == Strides(4, 8, 16, ALLEGRO) != plain  # sizes are no property of latents


@pytest.mark.parametrize(("chunk", "time", "latents"), [(5, 4, 1), (17, 4, 4), (33, 8, 4)])
def test_chunks_of_the_right_form(chunk: int, time: int, latents: int) -> None:
    assert Strides(time, 8, 8).latents_per_chunk(chunk) == latents


@pytest.mark.parametrize("chunk", [1, 2, 8])
def test_chunks_of_an_image_model_are_batches_of_any_size(chunk: int) -> None:
    assert Strides(1, 8, 8).latents_per_chunk(chunk) == chunk
    with pytest.raises(UsageError, match="at least 1 frame, got 0"):
        Strides(1, 8, 8).latents_per_chunk(0)


@pytest.mark.parametrize("chunk", [-3, 0, 1, 4, 16, 18])
def test_other_chunks_are_refused_with_the_nearest(chunk: int) -> None:
    with pytest.raises(UsageError, match=r"1 \+ 4k frames .* got .*; the nearest is \d+"):
        Strides(4, 8, 8).latents_per_chunk(chunk)
