"""FFmpeg filter graphs: deinterlacing, and decoded frames to RGB arrays of the final size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from wfvae_cli.media.clip import Bits, Colour
from wfvae_cli.media.colour import SWSCALE_MATRICES, PixelFormat, describe, swscale_levels
from wfvae_cli.media.frames import rescale
from wfvae_cli.media.headers import Crop
from wfvae_cli.media.sampling import Geometry

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Node = tuple[str, dict[str, str]]
Tags = tuple[int, int]
"""Matrix and range that a frame is tagged with, by FFmpeg's numbers."""

# Every output pixel from its own interpolated chroma, rounded, and the same on every machine.
_FLAGS = "bicubic+full_chroma_int+full_chroma_inp+accurate_rnd+bitexact"
_RGB = {8: "rgb24", 16: "rgb48le"}
_PLANAR_RGB = {8: "gbrp", 16: "gbrp16le"}
_RGBA = {8: "rgba", 16: "rgba64le"}
_TRANSPOSE = {  # (hflip, vflip) after transposing -> FFmpeg's name
    (False, False): "cclock_flip",
    (True, False): "clock",
    (False, True): "cclock",
    (True, True): "clock_flip",
}
_BAND_PIXELS = 1 << 20
_TICK = Fraction(1, 25)  # conversion graphs have no use for time, but need a time base


def tags_of(frame: VideoFrame) -> Tags:
    """Return the matrix and range that a frame is tagged with."""
    return int(frame.colorspace), int(frame.color_range)


class Converter:
    """Turns decoded frames into RGB arrays, with one filter graph per pixel format that comes.

    8-bit samples are within one code value of the exact conversion, deeper ones within two of
    their own; black and white come out as exactly 0 and the largest value.
    """

    def __init__(
        self, bits: Bits, colour: Colour, geometry: Geometry, tags: Tags | None = None
    ) -> None:
        """Remember what to make.

        Args:
            bits: 8 or 16, the depth of the arrays.
            colour: colour description of the frames' YUV.
            geometry: what to make of their size.
            tags: of the frames that `colour` is for; others are converted as they say
                themselves. None is those of the first frame.
        """
        self.bits = bits
        self.colour = colour
        self.geometry = geometry
        self._tags = tags
        self._conversions: dict[tuple[str, int, int, Tags], Callable[[VideoFrame], Pixels]] = {}

    def __call__(self, frame: VideoFrame) -> Pixels:
        """Convert one frame to HWC RGB, uint8 or uint16 over its full range."""
        tags = tags_of(frame)
        self._tags = self._tags or tags
        key = (frame.format.name, frame.width, frame.height, tags)
        if key not in self._conversions:
            self._conversions[key] = self._fitting(frame, tags)._conversion(frame)
        return self._conversions[key](frame)

    def _fitting(self, like: VideoFrame, tags: Tags) -> Converter:
        """Return a converter for frames like this one, whose colours or depth may be others."""
        fmt = PixelFormat.of(like.format)
        if tags == self._tags and fmt.bits <= self.bits:
            return self
        colour = self.colour
        if tags != self._tags:
            matrix, value_range = tags
            described, _ = describe(
                fmt, like.width, like.height, matrix=matrix, value_range=value_range
            )
            colour = replace(colour, matrix=described.matrix, range=described.range)
        if fmt.bits <= self.bits:
            return Converter(self.bits, colour, self.geometry, tags)
        return _Narrowing(colour, self.geometry)

    def _conversion(self, like: VideoFrame) -> Callable[[VideoFrame], Pixels]:
        """Build the conversion of frames of the format and size of `like` to RGB."""
        fmt, width, height = PixelFormat.of(like.format), like.width, like.height
        if not fmt.alpha:
            return _filtering(like, self._to_rgb(fmt, width, height))
        to_rgba = _filtering(like, self._to_rgba(fmt))
        rgb = _RGB[self.bits]
        shape = _filtering(VideoFrame(width, height, rgb), self._shape(width, height))

        def composite(frame: VideoFrame) -> Pixels:
            # Before scaling, or the colours under transparent pixels would bleed in.
            return shape(VideoFrame.from_ndarray(over_black(to_rgba(frame)), format=rgb))

        return composite

    def _to_rgb(self, fmt: PixelFormat, width: int, height: int) -> list[Node]:
        """The filters for an opaque frame of `fmt`."""
        levels = self._levels(fmt)
        if fmt.kind == "yuv" and not levels:
            # Conversion and scaling at once: one rounding less.
            return self._shape(width, height, self._input_colour(fmt))
        colour = self._input_colour(fmt)
        convert = [_scale(width, height, colour), *self._to_packed(fmt.kind != "rgb")]
        return convert + levels + self._shape(width, height)

    def _to_packed(self, from_yuv: bool) -> list[Node]:
        """The filters that say what a conversion before them makes: packed RGB.

        From YUV by way of planar RGB, for which FFmpeg has vector code and gives the same values
        in a third of the time.
        """
        packed = _format(_RGB[self.bits])
        return [_format(_PLANAR_RGB[self.bits]), _scale(0, 0, {}), packed] if from_yuv else [packed]

    def _to_rgba(self, fmt: PixelFormat) -> list[Node]:
        """The filters that give RGBA of the source's size, opaque being the largest value."""
        nodes = [_scale(0, 0, self._input_colour(fmt)), _format(_RGBA[self.bits])]
        return nodes + self._levels(fmt)

    def _levels(self, fmt: PixelFormat) -> list[Node]:
        """A table that moves black and white to the ends of the range, where they are not."""
        top = float((1 << self.bits) - 1)
        black, white = swscale_levels(fmt, self.colour)
        if self.bits == 16 and fmt.bits == 8:  # a shallower frame amid a deep clip
            black, white = black * 257, white * 257
        tables = {}
        if (black, white) != (0.0, top):
            # .15g: FFmpeg's parser of expressions knows no longer numbers.
            curve = f"(val-{black:.15g})*{top / (white - black):.15g}+0.5"
            tables = dict.fromkeys("rgb", curve)
        if fmt.alpha and fmt.kind != "rgb" and 8 < fmt.depth < 16:
            opaque = ((1 << fmt.depth) - 1) << (16 - fmt.depth)
            tables["a"] = f"val*{top / opaque:.15g}+0.5"
        return [("lutrgb", tables)] if tables else []

    def _input_colour(self, fmt: PixelFormat) -> dict[str, str]:
        options: dict[str, str] = {"in_range": self.colour.range, "out_range": "pc"}
        if matrix := SWSCALE_MATRICES.get(self.colour.matrix):
            options["in_color_matrix"] = matrix
        if fmt.subsampled and self.colour.chroma == "left":
            options["in_h_chr_pos"] = "0"  # FFmpeg's default is the middle, whatever the stream
        return options

    def _shape(self, width: int, height: int, colour: dict[str, str] | None = None) -> list[Node]:
        """Scale, turn, then crop or pad; all but the scaling in RGB, where every pixel counts."""
        orientation, (x, y) = self.geometry.orientation, self.geometry.offset
        scaled, size = self.geometry.scaled, self.geometry.size
        to = scaled[::-1] if orientation.transpose else scaled
        nodes: list[Node] = []
        if to != (width, height) or colour is not None:
            nodes.append(_scale(*to, colour or {}))
        nodes += self._to_packed(colour is not None)
        if orientation.transpose:
            direction = _TRANSPOSE[orientation.hflip, orientation.vflip]
            nodes.append(("transpose", {"dir": direction}))
        else:
            # A flipped frame has its rows in backward order, which PyAV before 17 misreads: copied.
            upside: list[Node] = [("vflip", {}), ("copy", {})] if orientation.vflip else []
            nodes += [("hflip", {})] * orientation.hflip + upside
        inner = (min(scaled[0], size[0]), min(scaled[1], size[1]))
        if inner != scaled:
            nodes.append(("crop", _rectangle(inner, max(x, 0), max(y, 0))))
        if inner != size:
            nodes.append(("pad", _rectangle(size, max(-x, 0), max(-y, 0)) | {"color": "black"}))
        return nodes


class _Narrowing(Converter):
    """Makes 8-bit RGB of deeper frames amid a clip of 8 bits."""

    def __init__(self, colour: Colour, geometry: Geometry) -> None:
        super().__init__(16, colour, geometry)

    def _conversion(self, like: VideoFrame) -> Callable[[VideoFrame], Pixels]:
        deep = super()._conversion(like)
        return lambda frame: rescale(deep(frame), 8)


class Deinterlacer:
    """Makes whole frames of interlaced ones, at the same rate, and leaves the others alone."""

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._format = ""

    @property
    def active(self) -> bool:
        """True once an interlaced frame has come."""
        return self._graph is not None

    def __call__(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        """Pass frames on; from the first one flagged as interlaced, through FFmpeg's bwdif."""
        time_base = Fraction(1)
        for frame in frames:
            if self._graph is None and not frame.interlaced_frame:
                yield frame
                continue
            if self._format != frame.format.name:
                # libavfilter aborts the process where frames of another format come.
                if self._graph is not None:
                    self._graph.vpush(None)
                    yield from self._finished(time_base)
                time_base = frame.time_base or _TICK
                options = {"mode": "send_frame", "parity": "auto", "deint": "interlaced"}
                self._graph = build_graph(frame, time_base, [("bwdif", options)])
                self._format = frame.format.name
            assert self._graph is not None
            self._graph.vpush(frame)
            yield from self._finished(time_base)
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._finished(time_base)

    def _finished(self, time_base: Fraction) -> Iterator[VideoFrame]:
        assert self._graph is not None
        while True:
            try:
                frame = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            # bwdif counts in half units, for the second field of each frame.
            if frame.pts is not None and frame.time_base is not None:
                frame.pts = round(frame.pts * frame.time_base / time_base)
                frame.time_base = time_base
            yield frame


class Cropper:
    """Cuts the sides off frames, in their own format."""

    def __init__(self, crop: Crop) -> None:
        self._crop = crop
        self._graph: Graph | None = None
        self._format = ""

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        """Return what the crop leaves of a frame."""
        crop = self._crop
        if crop == Crop():
            return frame
        if self._graph is None or self._format != frame.format.name:
            width = frame.width - crop.left - crop.right
            height = frame.height - crop.top - crop.bottom
            where = _rectangle((width, height), crop.left, crop.top) | {"exact": "1"}
            # Copied, because frames that begin amid another's rows end behind its last one.
            self._graph = build_graph(frame, _TICK, [("crop", where), ("copy", {})])
            self._format = frame.format.name
        self._graph.vpush(frame)
        return self._graph.vpull()


def without_profile(frame: VideoFrame) -> VideoFrame:
    """Return the frame without its ICC profile.

    PyAV frees the name that FFmpeg's PNG decoder gives to a profile twice once `side_data` is
    looked at (SideData wraps the entry's own dictionary), which ends the process.
    """
    graph = build_graph(frame, _TICK, [("sidedata", {"mode": "delete", "type": "ICC_PROFILE"})])
    graph.vpush(frame)
    return graph.vpull()


def _filtering(like: VideoFrame, nodes: list[Node]) -> Callable[[VideoFrame], Pixels]:
    """Build a filter graph of `nodes`, ending in a packed format, for frames like `like`."""
    graph = build_graph(like, _TICK, nodes)

    def run(frame: VideoFrame) -> Pixels:
        frame.pts = None
        graph.vpush(frame)
        # rgb24, rgb48le, rgba and rgba64le: never the floating-point arrays of PyAV's signature.
        return cast(Pixels, graph.vpull().to_ndarray())

    return run


def build_graph(frame: VideoFrame, time_base: Fraction, nodes: list[Node]) -> Graph:
    """A chain of filters for frames like `frame`."""
    graph = Graph()
    size = f"{frame.width}x{frame.height}"
    source = {"video_size": size, "pix_fmt": frame.format.name, "pixel_aspect": "1/1"}
    chain = [("buffer", source | {"time_base": str(time_base)}), *nodes, ("buffersink", {})]
    contexts = [graph.add(name, None, **options) for name, options in chain]
    graph.link_nodes(*contexts).configure()
    return graph


def over_black(rgba: Pixels) -> Pixels:
    """Composite straight-alpha HWC RGBA onto black: each colour times alpha, rounded."""
    return times_alpha(rgba[..., :3], rgba[..., 3:])


def times_alpha(rgb: Pixels, alpha: Pixels) -> Pixels:
    """Multiply HWC RGB by HW1 alpha of the same dtype, rounded.

    In bands of rows, and in the narrowest integers, because pictures can be large.
    """
    top = np.iinfo(rgb.dtype).max
    # The products, and half of what divides them, just fit: 255 * 255 + 127, and likewise.
    wide = np.uint16 if top == 255 else np.uint32
    composited = np.empty_like(rgb, order="C")
    rows = max(1, _BAND_PIXELS // rgb.shape[1])
    for first in range(0, rgb.shape[0], rows):
        band = slice(first, first + rows)
        product: NDArray[np.unsignedinteger] = rgb[band].astype(wide)
        product *= alpha[band]
        product += wide(top // 2)
        product //= wide(top)
        composited[band] = product
    return composited


def _scale(width: int, height: int, colour: dict[str, str]) -> Node:
    """The scale filter; 0 keeps a side."""
    return ("scale", {"w": str(width), "h": str(height), "flags": _FLAGS} | colour)


def _format(name: str) -> Node:
    return ("format", {"pix_fmts": name})


def _rectangle(size: tuple[int, int], x: int, y: int) -> dict[str, str]:
    return {"w": str(size[0]), "h": str(size[1]), "x": str(x), "y": str(y)}
