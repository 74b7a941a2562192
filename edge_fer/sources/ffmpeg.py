"""The FFmpeg libraries that OpenCV brought, without OpenCV: for what they decode and OpenCV cannot convert.

Since FFmpeg 8, OpenCV leaves interlaced frames as they were before, and says that it has read them. Decoding and the
older way of converting are in the same libraries, so they are called here, by ctypes. Only the beginnings of FFmpeg's
structures are read, which have been the same in the versions that are let in.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_int64, c_uint, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_fer.core import Image
from edge_fer.sources.mounting import upright

VERSIONS = (61, 62)
"""Major versions of libavcodec (FFmpeg 7 and 8) whose structures are known to be as they are read here."""

_BGR24 = 3
_BICUBIC = 4
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_AGAIN = -11
# Where the fields are, in bytes.
_STREAM_COUNT, _STREAMS = 44, 48  # AVFormatContext
_PARAMETERS, _TIME_BASE, _START_TIME = 16, 32, 40  # AVStream
_PACKET_STREAM = 36  # AVPacket
_LINES, _SIZE, _FORMAT, _SHOWN_AT, _DECODED_AT = 64, 104, 116, 136, 144  # AVFrame; its data come first
_NO_TIME = -(2**63)

_FUNCTIONS: dict[str, dict[str, tuple[Any, list[Any]]]] = {
    "avcodec": {
        "avcodec_version": (c_uint, []),
        "avcodec_find_decoder": (c_void_p, [c_int]),
        "avcodec_alloc_context3": (c_void_p, [c_void_p]),
        "avcodec_parameters_to_context": (c_int, [c_void_p, c_void_p]),
        "avcodec_open2": (c_int, [c_void_p, c_void_p, c_void_p]),
        "avcodec_send_packet": (c_int, [c_void_p, c_void_p]),
        "avcodec_receive_frame": (c_int, [c_void_p, c_void_p]),
        "avcodec_free_context": (None, [POINTER(c_void_p)]),
        "av_packet_alloc": (c_void_p, []),
        "av_packet_unref": (None, [c_void_p]),
        "av_packet_free": (None, [POINTER(c_void_p)]),
    },
    "avformat": {
        "avformat_open_input": (c_int, [POINTER(c_void_p), c_char_p, c_void_p, c_void_p]),
        "avformat_find_stream_info": (c_int, [c_void_p, c_void_p]),
        "av_read_frame": (c_int, [c_void_p, c_void_p]),
        "avformat_close_input": (None, [POINTER(c_void_p)]),
    },
    "avutil": {
        "av_frame_alloc": (c_void_p, []),
        "av_frame_free": (None, [POINTER(c_void_p)]),
        "av_opt_get_int": (c_int, [c_void_p, c_char_p, c_int, POINTER(c_int64)]),
    },
    "swscale": {
        "sws_getCachedContext": (c_void_p, [c_void_p, *[c_int] * 7, c_void_p, c_void_p, POINTER(c_double)]),
        "sws_getCoefficients": (c_void_p, [c_int]),
        "sws_getColorspaceDetails": (
            c_int,
            [c_void_p, *[POINTER(c_void_p), POINTER(c_int)] * 2, *[POINTER(c_int)] * 3],
        ),
        "sws_setColorspaceDetails": (c_int, [c_void_p, *[c_void_p, c_int] * 2, *[c_int] * 3]),
        "sws_scale": (c_int, [c_void_p, c_void_p, c_void_p, c_int, c_int, c_void_p, c_void_p]),
        "sws_freeContext": (None, [c_void_p]),
    },
}


@cache
def functions() -> dict[str, Callable[..., Any]] | None:
    """FFmpeg's functions by name; None where OpenCV has none, or of a version that is not known here."""
    found_at = re.findall(r"(?m)(/.*/lib(avcodec|avformat|avutil|swscale)[-.].*)$", _maps())
    libraries = {name: path for path, name in found_at}
    if libraries.keys() != _FUNCTIONS.keys():
        return None
    found: dict[str, Callable[..., Any]] = {}
    try:
        for library, signatures in _FUNCTIONS.items():
            loaded = ctypes.CDLL(libraries[library])
            for name, (result, arguments) in signatures.items():
                found[name] = getattr(loaded, name)
                found[name].restype, found[name].argtypes = result, arguments  # type: ignore[attr-defined]
    except (OSError, AttributeError):
        return None
    return found if found["avcodec_version"]() >> 16 in VERSIONS else None


def _maps() -> str:
    return Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")


class FfmpegCapture:
    """Reads the first video stream of a file, with the calls of ``cv2.VideoCapture`` that a video needs.

    Args:
        name: of the file, as ``files.native_name`` gives it.
        rotation: degrees clockwise by which its images are turned: ``cv2.CAP_PROP_ORIENTATION_META`` of the file.

    Raises:
        OSError: FFmpeg cannot be called here, or cannot open the file.
    """

    def __init__(self, name: str | bytes, rotation: int = 0) -> None:
        called = functions()
        if called is None:
            raise OSError("FFmpeg cannot be called directly")
        self._ = called
        self._rotation = rotation
        self._input, self._decoder, self._packet, self._frame = (c_void_p() for _ in range(4))
        self._scaler = c_void_p()
        self._scaled: tuple[int, ...] = ()
        try:
            self._open(name.encode() if isinstance(name, str) else name)
        except OSError:
            self.release()
            raise

    def isOpened(self) -> bool:
        """Until ``release``."""
        return bool(self._input)

    def grab(self) -> bool:
        """Decode the next frame. False at the end, and for a frame that is damaged."""
        if not self._input:
            return False
        while (received := self._["avcodec_receive_frame"](self._decoder, self._frame)) == _AGAIN:
            packet: c_void_p | None = self._packet
            if self._["av_read_frame"](self._input, self._packet) < 0:
                packet = None  # the decoder gives what it still has
            elif _int(self._packet, _PACKET_STREAM) != self._index:
                self._["av_packet_unref"](self._packet)
                continue
            sent = self._["avcodec_send_packet"](self._decoder, packet)
            self._["av_packet_unref"](self._packet)
            if sent < 0:
                return False
        return bool(received >= 0)

    def retrieve(self) -> tuple[bool, Any]:
        """The frame that was grabbed, BGR, as OpenCV would give it: upright, by the video's own matrix and range."""
        width, height = _int(self._frame, _SIZE), _int(self._frame, _SIZE + 4)
        pixels = _int(self._frame, _FORMAT)
        if not self._input or min(width, height) < 1:
            return False, None
        size = (width, height, pixels, width, height, _BGR24, _BICUBIC)
        self._scaler = c_void_p(self._["sws_getCachedContext"](self._scaler, *size, None, None, None))
        if size != self._scaled:  # it is a new one
            self._scaled = size
            self._set_colors()
        stride = -(-3 * width // 64) * 64
        image: Image = np.empty((height + 1, stride), np.uint8)  # a row more: FFmpeg writes a little past the end
        into, strides = (c_void_p * 4)(image.ctypes.data), (c_int * 4)(stride)
        assert self._frame.value is not None
        done = self._["sws_scale"](
            self._scaler, self._frame, c_void_p(self._frame.value + _LINES), 0, height, into, strides
        )
        return done == height, upright(image[:height, : 3 * width].reshape(height, width, 3), self._rotation, "none")

    def read(self) -> tuple[bool, Any]:
        """``grab`` and ``retrieve``."""
        return self.retrieve() if self.grab() else (False, None)

    def get(self, property_id: int) -> float:
        """The time of the frame that was grabbed, in milliseconds: all that is asked for."""
        if property_id != cv2.CAP_PROP_POS_MSEC or not self._input:
            return 0.0
        shown = _int64(self._frame, _SHOWN_AT)
        shown = _int64(self._frame, _DECODED_AT) if shown == _NO_TIME else shown
        return 0.0 if shown == _NO_TIME else (shown - self._start) * self._tick_s * 1000

    def set(self, property_id: int, value: float) -> bool:
        """Nothing can be set."""
        return False

    def release(self) -> None:
        """Give all back. May be called again."""
        if self._scaler:
            self._["sws_freeContext"](self._scaler)
        self._["av_frame_free"](byref(self._frame))
        self._["av_packet_free"](byref(self._packet))
        self._["avcodec_free_context"](byref(self._decoder))
        self._["avformat_close_input"](byref(self._input))
        self._scaler = c_void_p()

    def _set_colors(self) -> None:
        """Tell the scaler the video's matrix and range, which OpenCV's knows: else it takes BT.601, 16-235."""
        matrix, range_ = c_int64(), c_int64()
        self._["av_opt_get_int"](self._decoder, b"colorspace", 0, byref(matrix))
        self._["av_opt_get_int"](self._decoder, b"color_range", 0, byref(range_))
        tables, ranges, looks = (c_void_p(), c_void_p()), (c_int(), c_int()), (c_int(), c_int(), c_int())
        details = (byref(tables[0]), byref(ranges[0]), byref(tables[1]), byref(ranges[1]), *map(byref, looks))
        if self._["sws_getColorspaceDetails"](self._scaler, *details) < 0:
            return  # it is no YUV
        table = self._["sws_getCoefficients"](matrix.value)
        full = int(ranges[0].value or range_.value == _FULL_RANGE)
        self._["sws_setColorspaceDetails"](self._scaler, table, full, tables[1], ranges[1], *looks)

    def _open(self, name: bytes) -> None:
        if self._["avformat_open_input"](byref(self._input), name, None, None) < 0:
            raise OSError("cannot be opened")
        if self._["avformat_find_stream_info"](self._input, None) < 0:
            raise OSError("no streams")
        streams = _pointer(self._input, _STREAMS)
        for index in range(_int(self._input, _STREAM_COUNT)):
            stream = _pointer(streams, 8 * index)
            parameters = _pointer(stream, _PARAMETERS)
            if _int(parameters, 0) == 0:  # AVMEDIA_TYPE_VIDEO
                break
        else:
            raise OSError("no video stream")
        self._index = index
        numerator, denominator = _int(stream, _TIME_BASE), _int(stream, _TIME_BASE + 4)
        self._tick_s = numerator / denominator if denominator else 0.0
        start = _int64(stream, _START_TIME)
        self._start = 0 if start == _NO_TIME else start
        codec = self._["avcodec_find_decoder"](_int(parameters, 4))
        self._decoder = c_void_p(self._["avcodec_alloc_context3"](codec))
        self._["avcodec_parameters_to_context"](self._decoder, parameters)
        if not codec or self._["avcodec_open2"](self._decoder, codec, None) < 0:
            raise OSError("no decoder")
        self._packet = c_void_p(self._["av_packet_alloc"]())
        self._frame = c_void_p(self._["av_frame_alloc"]())


def _int(base: c_void_p, offset: int) -> int:
    return c_int.from_address((base.value or 0) + offset).value


def _int64(base: c_void_p, offset: int) -> int:
    return c_int64.from_address((base.value or 0) + offset).value


def _pointer(base: c_void_p, offset: int) -> c_void_p:
    return c_void_p.from_address((base.value or 0) + offset)
