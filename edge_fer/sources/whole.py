"""Whether a media file was cut short, by its own structure: what its containers say they hold against what is there.

Times do not tell: a last picture may be held for long, sound may outlast the pictures, and a varying rate spoils every
count.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_BOXES = (
    *(b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"styp", b"sidx", b"ssix", b"prft", b"emsg", b"free", b"skip"),
    *(b"wide", b"udta", b"uuid", b"meta", b"pdin", b"pnot"),
)


def is_cut(path: Path) -> bool:
    """True where the file ends before what it says it holds; False where it is whole, or says nothing of it."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(32)
        if head[:4] == b"RIFF":
            return _riff(file, size)
        if head[4:8] in _BOXES:
            return _boxes(file, size)
        if head[:4] == b"\x1aE\xdf\xa3":
            return _ebml(file, size)
        if head[:3] == b"FLV":
            return _flv(file, size)
        if head[:16] == b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\x00\xaa\x00b\xcel":
            return _asf(file, size)
        if head[:4] == b"GIF8":
            file.seek(max(0, size - 64))
            return b";" not in file.read()
    return False


def _riff(file: BinaryIO, size: int) -> bool:
    """AVI: one RIFF chunk after the other; a size of 0 was never filled in."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        name, length = file.read(4), int.from_bytes(file.read(4), "little")
        if name != b"RIFF" or not length or length == 0xFFFFFFFF:
            return False
        at += 8 + length + length % 2
    return at - 1 > size  # the last padding byte may be missing


def _boxes(file: BinaryIO, size: int) -> bool:
    """MP4, MOV and their like: boxes one after the other."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        length, name = int.from_bytes(file.read(4), "big"), file.read(4)
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        if length < 8 or name not in _BOXES:  # 0 reaches to the end; else something else stands behind the film
            return False
        at += length
    return at > size


def _ebml(file: BinaryIO, size: int) -> bool:
    """Matroska and WebM: elements one after the other, clusters in a segment that may not know its size."""
    at = 0
    while at < size:
        file.seek(at)
        name = file.read(4)
        if len(name) < 4:
            return True
        name = name[: 9 - name[0].bit_length()]
        file.seek(at + len(name))
        first = file.read(1)
        if not first:
            return True
        if len(name) > 4 or not first[0]:  # something else stands behind the film
            return False
        extra = 8 - first[0].bit_length()
        start = at + len(name) + 1 + extra
        if start > size:
            return True
        length = int.from_bytes(bytes([first[0] & (0x7F >> extra)]) + file.read(extra), "big")
        unknown = length == (1 << 7 * (extra + 1)) - 1
        if unknown and name not in (b"\x18S\x80g", b"\x1fC\xb6u"):
            return False
        # Look into the segment, and into a cluster that does not know its size: a recording that went on until then.
        at = start if unknown else start + length
    return at > size


def _flv(file: BinaryIO, size: int) -> bool:
    """Each tag is followed by its length."""
    file.seek(max(0, size - 4))
    length = int.from_bytes(file.read(4), "big")
    if size < 32 or not 11 <= length <= size - 13:
        return True
    file.seek(size - 4 - length + 1)
    return int.from_bytes(file.read(3), "big") + 11 != length


def _asf(file: BinaryIO, size: int) -> bool:
    """The file's properties have its size."""
    file.seek(0)
    header = file.read(8192)
    at = header.find(b"\xa1\xdc\xab\x8cG\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c eS")
    return at >= 0 and int.from_bytes(header[at + 40 : at + 48], "little") > size
