"""What the head of an image file says, before anything of it is decoded: size, orientation, whether it moves.

A file of a megabyte can hold an image of gigabytes, and OpenCV turns an image as its EXIF data say only where it reads
it without transparency, and of TIFF only half of them.
"""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

Kind = Literal["jpeg", "png", "webp", "bmp", "tiff", "pnm", "pam", "jp2", "avif", "heic", "gif", "other"]


@dataclass(frozen=True)
class Header:
    """Of an image file.

    Attributes:
        kind: of the file; "other" where this module does not know it.
        width: pixels as stored; 0 where not found.
        height: likewise.
        depth: bytes of one channel.
        orientation: EXIF's, 1-8; 1 stands upright. Of JPEG, which OpenCV turns itself, always 1.
        orientation_at: where it stands in a TIFF; 0 elsewhere.
        white: value of a white pixel as OpenCV gives it; 0 where that is the largest of its type.
        moving: it is an animation.
        whole_bytes: what a progressive JPEG needs beside its pixels, since it is not decoded line by line.
    """

    kind: Kind
    width: int = 0
    height: int = 0
    depth: int = 1
    orientation: int = 1
    orientation_at: int = 0
    white: int = 0
    moving: bool = False
    whole_bytes: int = 0

    def bytes_to_decode(self, reduction: int = 1) -> int:
        """About how much memory OpenCV takes for it in color, where each side is reduced by so much."""
        # As measured, with room for a copy to draw on: PNG and WebP keep one with transparency, JPEG 2000 and AVIF
        # whole planes of 32 and 16 bits.
        each = {"jpeg": 5, "jp2": 16, "avif": 16}.get(self.kind, 6)
        return self.width * self.height * self.depth * each // reduction**2 + self.whole_bytes


# By mirror (none, top and bottom, left and right), then by the quarter turns against the clock that come before it.
_HEIF_ORIENTATION = {None: (1, 8, 3, 6), 0: (4, 5, 2, 7), 1: (2, 7, 4, 5)}


def read_header(path: Path) -> Header:
    """Read the head of a file. It need not be an image, nor whole."""
    with path.open("rb") as file:
        head = file.read(64)
        try:
            return _header(file, head)
        except (struct.error, LookupError, ValueError, ArithmeticError):  # cut short, or damaged
            return Header("other")


def _header(file: BinaryIO, head: bytes) -> Header:
    if head[:3] == b"\xff\xd8\xff":
        return _jpeg(file)
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return _png(file, head)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp(file, head)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(file)
    if head[:2] == b"BM":
        width, height = struct.unpack_from("<ii", head, 18)
        return Header("bmp", abs(width), abs(height))
    if re.match(rb"P[1-6]\s", head):
        return _pnm(file, head)
    if re.match(rb"P7\s", head):
        return _pam(file)
    if head[:4] == b"\x59\xa6\x6a\x95":  # Sun raster
        return Header("other", *struct.unpack_from(">II", head, 4))
    if head[:3] == b"GIF":
        width, height = struct.unpack_from("<HH", head, 6)
        return Header("gif", width, height, moving=True)
    if head[4:8] == b"jP  " or head[:4] == b"\xff\x4f\xff\x51":
        return _jp2(file)
    if head[4:8] == b"ftyp":
        return _heif(file, head)
    return Header("other")


def _pnm(file: BinaryIO, head: bytes) -> Header:
    file.seek(0)
    numbers = re.sub(rb"#[^\n]*", b"", file.read(4096)).split()
    most = int(numbers[3]) if head[1:2] not in b"14" else 1
    # OpenCV itself makes 255 of it in bits, and in bytes that are written out in digits.
    scaled = head[1:2] in b"14" or (head[1:2] in b"23" and most <= 255)
    return Header("pnm", int(numbers[1]), int(numbers[2]), 2 if most > 255 else 1, white=0 if scaled else most)


def _pam(file: BinaryIO) -> Header:
    file.seek(0)
    said = dict(re.findall(rb"(?m)^(WIDTH|HEIGHT|MAXVAL)[ \t]+(\d+)", file.read(4096).partition(b"ENDHDR")[0]))
    width, height, white = (int(said[name]) for name in (b"WIDTH", b"HEIGHT", b"MAXVAL"))
    return Header("pam", width, height, 2 if white > 255 else 1, white=white)


def _jpeg(file: BinaryIO) -> Header:
    file.seek(2)
    while True:
        marker = file.read(2)
        while marker[1] == 0xFF:  # padding
            marker = marker[1:] + file.read(1)
        (length,) = struct.unpack(">H", file.read(2))
        if 0xC0 <= marker[1] <= 0xCF and marker[1] not in (0xC4, 0xC8, 0xCC):
            _, height, width, channels = struct.unpack(">BHHB", file.read(6))
            sampling = [divmod(file.read(3)[1], 16) for _ in range(channels)]
            blocks = sum(h * v for h, v in sampling) / (max(h for h, _ in sampling) * max(v for _, v in sampling))
            progressive = marker[1] in (0xC2, 0xC6, 0xCA, 0xCE)
            return Header("jpeg", width, height, whole_bytes=round(2 * width * height * blocks) if progressive else 0)
        if length < 2 or marker[0] != 0xFF:
            return Header("jpeg")
        file.seek(length - 2, 1)


def _png(file: BinaryIO, head: bytes) -> Header:
    width, height, bits = struct.unpack_from(">IIB", head, 16)
    orientation, moving, at = 1, False, 8
    while True:
        file.seek(at)
        chunk = file.read(8)
        if len(chunk) < 8 or chunk[4:] == b"IEND":
            break
        length = int.from_bytes(chunk[:4], "big")
        if chunk[4:] == b"acTL":
            moving = int.from_bytes(file.read(4), "big") > 1
        elif chunk[4:] == b"eXIf":
            orientation = exif_orientation(file.read(min(length, 65536)))
        at += 12 + length
    return Header("png", width, height, 2 if bits == 16 else 1, orientation, moving=moving)


def _webp(file: BinaryIO, head: bytes) -> Header:
    kind = head[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return Header("webp", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", head, 21)
        return Header("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
    orientation, at = 1, 12
    while head[20] & 8:  # it has EXIF data
        file.seek(at)
        chunk = file.read(8)
        length = int.from_bytes(chunk[4:], "little")
        if len(chunk) < 8:
            break
        if chunk[:4] == b"EXIF":
            orientation = exif_orientation(file.read(min(length, 65536)))
            break
        at += 8 + length + length % 2
    return Header("webp", width, height, orientation=orientation, moving=bool(head[20] & 2))


def _tiff(file: BinaryIO) -> Header:
    file.seek(0)
    head = file.read(8)
    order = "<" if head[:2] == b"II" else ">"
    version, at = struct.unpack(order + "HI", head[2:])
    if version != 42:  # BigTIFF
        return Header("tiff")
    file.seek(at)
    (count,) = struct.unpack(order + "H", file.read(2))
    tags: dict[int, tuple[int, int]] = {}  # value and where it stands
    counts: dict[int, int] = {}
    for _ in range(min(count, 512)):
        tag, kind, count_of, value = struct.unpack(order + "HHI4s", file.read(12))
        counts[tag] = count_of
        tags[tag] = (struct.unpack_from(order + ("H" if kind == 3 else "I"), value)[0], file.tell() - 4)
    (width, _), (height, _), (orientation, orientation_at) = (tags.get(tag, (0, 0)) for tag in (256, 257, 274))
    bits, bits_at = tags.get(258, (8, 0))
    if counts.get(258, 1) > 2:  # one number for each channel, too many to stand here
        (bits_at,) = struct.unpack(order + "I", _read_at(file, bits_at, 4))
        (bits,) = struct.unpack(order + "H", _read_at(file, bits_at, 2))
    depth = max(1, bits // 8)
    if not 1 <= orientation <= 8:
        orientation, orientation_at = 1, 0
    return Header("tiff", width, height, depth, orientation, orientation_at)


def _read_at(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


def _jp2(file: BinaryIO) -> Header:
    file.seek(0)
    head = file.read(4096)
    at = head.find(b"\xff\x4f\xff\x51")  # the codestream and its size
    _, _, width, height, left, top = struct.unpack_from(">HHIIII", head, at + 4) if at >= 0 else (0,) * 6
    return Header("jp2", max(0, width - left), max(0, height - top))


def _heif(file: BinaryIO, head: bytes) -> Header:
    """AVIF and HEIC: the largest image in it."""
    (length,) = struct.unpack(">I", head[:4])
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, min(length, 64), 4))}
    file.seek(0)
    start = file.read(65536)
    sizes = [struct.unpack_from(">II", start, found.end() + 4) for found in re.finditer(b"ispe", start)]
    width, height = max(sizes, default=(0, 0), key=lambda wh: wh[0] * wh[1])
    turn, mirror = re.search(rb"irot(.)", start, re.DOTALL), re.search(rb"imir(.)", start, re.DOTALL)
    orientation = _HEIF_ORIENTATION[mirror[1][0] & 1 if mirror else None][turn[1][0] & 3 if turn else 0]
    if brands & {b"avif", b"avis"}:
        return Header("avif", width, height, orientation=orientation, moving=b"avis" in brands)
    if brands & {b"heic", b"heix", b"heim", b"heis", b"mif1"}:
        return Header("heic", width, height, orientation=orientation)
    return Header("other")


def exif_orientation(data: bytes) -> int:
    """The orientation in EXIF data, 1-8; 1 where they have none."""
    data = data.removeprefix(b"Exif\0\0")
    try:
        order = {b"II": "<", b"MM": ">"}[data[:2]]
        (at,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", data, entry)
            if tag == 274 and 1 <= value <= 8:
                return int(value)
    except (KeyError, struct.error):
        pass
    return 1


def jpeg_follows(path: Path) -> bool:
    """Whether a JPEG file is a video: another image of the same size behind the first.

    Photos hold further images too, previews or the second one of a pair, but say so or have them smaller.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        scan = data.find(b"\xff\xda", _frame_header_at(data, 0))
        end = data.find(b"\xff\xd9", scan)
        following = data.find(b"\xff\xd8\xff", end, end + 64)
        if scan < 0 or end < 0 or following < 0 or data.find(b"MPF\0", 0, scan) >= 0:
            return False
        first, second = _frame_header_at(data, 0), _frame_header_at(data, following)
        return first > 0 and second > 0 and data[first + 5 : first + 9] == data[second + 5 : second + 9]


def _frame_header_at(data: mmap.mmap, start: int) -> int:
    """Where the frame header (SOF) of the JPEG that begins at ``start`` is; -1 where there is none."""
    at = start + 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if 0xC0 <= data[at + 1] <= 0xCF and data[at + 1] not in (0xC4, 0xC8, 0xCC):
            return at
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return -1
