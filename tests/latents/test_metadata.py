from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.latents.samples import describe, full_metadata
from wfvae_cli.errors import LatentError
from wfvae_cli.latents.metadata import LONGEST_HOLD, SCHEMA_VERSION, LatentMetadata, PosteriorKind
from wfvae_cli.latents.normalization import AppliedNormalization
from wfvae_cli.latents.strings import clean_text
from wfvae_cli.strides import ClipLengths, Progression, Strides

text = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20)
name = text.filter(bool)
integer = st.integers(1, 2**62)
positive = st.builds(Fraction, integer, integer)
term = st.integers(1, 2**31 - 1)
rate = st.builds(Fraction, term, term)
finite = st.floats(allow_nan=False, allow_infinity=False)
stride = st.integers(1, 16)
size = st.integers(1, 10**6)


@st.composite
def metadata(draw: st.DrawFn) -> LatentMetadata:
    channels = draw(st.integers(1, 5))
    lengths = st.builds(Progression, st.integers(1, 64), stride)
    clips = st.none() | st.builds(ClipLengths, lengths, lengths)
    strides = draw(st.builds(Strides, stride, stride, stride, clips))
    frames, height, width = draw(size), draw(size), draw(size)
    shift = st.lists(finite, min_size=channels, max_size=channels).map(tuple)
    scale = st.lists(finite.filter(bool), min_size=channels, max_size=channels).map(tuple)
    source = name.filter(lambda source: source != "none")
    posteriors: tuple[PosteriorKind, ...] = ("mean", "sample", "moments")
    posterior = draw(st.sampled_from(posteriors))
    normalization = None
    if posterior != "moments":
        normalization = draw(st.none() | st.builds(AppliedNormalization, shift, scale, source))
    return LatentMetadata(
        model=draw(name),
        model_sha256=draw(st.binary(min_size=32, max_size=32)).hex(),
        family=draw(name),
        strides=strides,
        channels=channels,
        width=width,
        height=height,
        frames=frames,
        pad_right=-width % strides.width,
        pad_bottom=-height % strides.height,
        pad_frames=strides.padded_frames(frames) - frames,
        posterior=posterior,
        seed=draw(st.integers(0, 2**63 - 1)) if posterior == "sample" else None,
        normalization=normalization,
        compute_dtype=draw(name),
        frame_rate=draw(st.none() | rate),
        time_base=draw(rate),
        start=draw(positive) * draw(st.sampled_from((-1, 0, 1))),
        last_duration=draw(st.none() | positive.filter(lambda hold: hold <= LONGEST_HOLD)),
        sample_aspect=draw(rate),
        bits=draw(st.sampled_from((8, 16))),
        source_bits=draw(st.integers(1, 16)),
        colour_matrix=draw(text),
        colour_range=draw(st.sampled_from(("tv", "pc"))),
        colour_primaries=draw(text),
        colour_transfer=draw(text),
        pixel_format=draw(text),
        is_image=draw(st.booleans()),
        source=draw(text),
        extra=draw(st.dictionaries(text, text, max_size=3)),
    )


@given(metadata())
@settings(deadline=None, max_examples=100)
def test_strings_carry_everything(original: LatentMetadata) -> None:
    strings = original.to_strings()
    assert all(isinstance(value, str) for value in strings.values())
    assert LatentMetadata.from_strings(strings) == original


def test_the_latent_shape_covers_clip_and_padding() -> None:
    assert describe(frames=6, pad_frames=3).latent_shape == (4, 3, 3, 4)
    assert describe(frames=1).latent_shape == (4, 1, 3, 4)


def test_lengths_of_clips_are_recorded_where_the_model_is_not_causal() -> None:
    assert not {"clip_frames", "clip_latents"} & set(describe(frames=5).to_strings())
    clips = ClipLengths(Progression(22, 17), Progression(7, 5))
    original = describe(frames=30, pad_frames=9, strides=Strides(4, 8, 8, clips))
    assert original.latent_shape[1] == 12
    strings = original.to_strings()
    assert (strings["clip_frames"], strings["clip_latents"]) == ("22 + 17k", "7 + 5k")
    assert LatentMetadata.from_strings(strings) == original
    with pytest.raises(LatentError, match=r"'pad_frames' should be .* 22 \+ 17k, got 30 \+ 8"):
        describe(frames=30, pad_frames=8, strides=Strides(4, 8, 8, clips))


@pytest.mark.parametrize("key", ["clip_frames", "clip_latents"])
@pytest.mark.parametrize(
    "text", ["", "22", "22+17k", "0 + 17k", "22 + 0k", "22 + -1k", "2 + 4096k"]
)
def test_lengths_that_make_no_sense_are_refused(key: str, text: str) -> None:
    clips = ClipLengths(Progression(22, 17), Progression(7, 5))
    strings = describe(frames=22, strides=Strides(4, 8, 8, clips)).to_strings()
    with pytest.raises(LatentError, match=f"'{key}' should be"):
        LatentMetadata.from_strings(strings | {key: text})
    del strings["clip_latents"]
    with pytest.raises(LatentError, match="'clip_latents' is missing"):
        LatentMetadata.from_strings(strings)


def test_a_hold_is_left_out_where_there_is_none() -> None:
    assert "last_duration" not in full_metadata(frames=5).to_strings()
    for hold in (Fraction(0), Fraction(-1), LONGEST_HOLD + 1, Fraction(1, 10**20)):
        with pytest.raises(LatentError, match="last_duration"):
            describe(frames=5, last_duration=hold)


def test_unknown_keys_are_left_aside() -> None:
    original = full_metadata(frames=5)
    strings = original.to_strings() | {"added_by_a_later_tool": "x", "format": "pt"}
    assert LatentMetadata.from_strings(strings) == original


OPTIONAL = {"seed", "frame_rate", "extra.fingerprint"}


@pytest.mark.parametrize("key", sorted(set(full_metadata(frames=5).to_strings()) - OPTIONAL))
def test_a_missing_field_is_named(key: str) -> None:
    strings = full_metadata(frames=5).to_strings()
    del strings[key]
    with pytest.raises(LatentError, match=rf"'{key}' is missing.*encode the source again"):
        LatentMetadata.from_strings(strings)


@pytest.mark.parametrize(
    ("key", "garbled"),
    [
        ("schema", "other"),
        ("schema_version", "one"),
        ("model", ""),
        ("model", "tiny\x1b[2J"),
        ("model_sha256", "ABC"),
        ("family", ""),
        ("stride_time", "0"),
        ("stride_width", "99999"),
        ("channels", "4.0"),
        ("channels", "-4"),
        ("channels", "٤"),
        ("channels", "9" * 5000),
        ("width", "0"),
        ("width", "31"),
        ("height", "24"),
        ("frames", "0"),
        ("frames", "4"),
        ("pad_right", "-2"),
        ("pad_frames", "1"),
        ("posterior", "median"),
        ("posterior", "mean"),
        ("seed", "-1"),
        ("seed", str(2**63)),
        ("shift", "[0, 0, 0]"),
        ("shift", "[0, 0, 0, true]"),
        ("shift", "[0, 0, 0, NaN]"),
        ("shift", f"[0, 0, 0, {10**400}]"),
        ("shift", "[" * 100_000),
        ("scale", "1"),
        ("scale", "[1, 1, 1, 0]"),
        ("frame_rate", "29.97"),
        ("frame_rate", "30/0"),
        ("frame_rate", "-30/1"),
        ("frame_rate", "0/1"),
        ("frame_rate", "2147483648/1"),
        ("time_base", "1/2147483648"),
        ("sample_aspect", "4294967296/3"),
        ("time_base", "1"),
        ("start", "nan"),
        ("sample_aspect", "0/1"),
        ("bits", "10"),
        ("source_bits", "0"),
        ("colour_range", "full"),
        ("is_image", "yes"),
    ],
)
def test_a_garbled_field_is_named(key: str, garbled: str) -> None:
    strings = full_metadata(frames=5).to_strings() | {key: garbled}
    # changing one of two that must agree may be reported as the other's fault
    partners = {"width": "pad_right", "height": "pad_bottom", "posterior": "seed"}
    names = "|".join({key, partners.get(key, key), "pad_frames" if key == "frames" else key})
    with pytest.raises(LatentError, match=rf"'({names})' should|'{key}' holds") as caught:
        LatentMetadata.from_strings(strings)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, 1000])
def test_another_version_says_which_came_and_which_is_read(version: int) -> None:
    strings = describe(frames=5).to_strings() | {"schema_version": str(version)}
    message = rf"version {version}, but this wfvae reads version {SCHEMA_VERSION}: upgrade"
    with pytest.raises(LatentError, match=message):
        LatentMetadata.from_strings(strings)


def test_names_that_cannot_be_stored_are_cleaned() -> None:
    undecodable = b"caf\xe9\n.mp4".decode("utf-8", "surrogateescape")
    strings = describe(frames=1, source=undecodable).to_strings()
    assert strings["source"] == "caf��.mp4"
    assert LatentMetadata.from_strings(strings).source == clean_text(undecodable)


def test_extra_strings_must_be_unicode() -> None:
    with pytest.raises(LatentError, match=r"'extra\.path'"):
        describe(extra={"path": "\udce9"})


def test_what_cannot_be_read_back_is_not_accepted() -> None:
    with pytest.raises(LatentError, match="'time_base'"):
        describe(time_base=Fraction(1, 10**20))
    with pytest.raises(ValueError, match="length is not known"):
        describe().to_strings()
    with pytest.raises(LatentError, match="'normalization'"):
        describe(normalization=AppliedNormalization((0.0,) * 4, (1.0,) * 4, "none"))
    with pytest.raises(LatentError, match="'normalization' should be none for posterior moments"):
        full_metadata(posterior="moments", seed=None)
    with pytest.raises(LatentError, match="'seed'"):
        replace(describe(), seed=3)
