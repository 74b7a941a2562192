"""What a power cut leaves of a card, as the emulated board of `make image-test` has it."""

import random
import struct
from pathlib import Path

import pytest
from machine import lose_power

SECTOR = 512


def log_of(path: Path, *entries: tuple[int, int, bytes], flushed: int) -> Path:
    """A log as QEMU's blklogwrites leaves it: (sector, flags, data) each; so many of them are in the superblock."""
    text = struct.pack("<QQQI", 0x6A736677736872, 1, flushed, SECTOR).ljust(SECTOR, b"\0")
    for sector, flags, data in entries:
        text += struct.pack("<QQQQ", sector, len(data) // SECTOR, flags, 0).ljust(SECTOR, b"\0") + data
    path.write_bytes(text)
    return path


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "card.img"
    path.write_bytes(bytes(64 * SECTOR))
    return path


def sector(card: Path, number: int) -> bytes:
    return card.read_bytes()[number * SECTOR : (number + 1) * SECTOR]


def test_what_was_flushed_is_there(card: Path, tmp_path: Path) -> None:
    log = log_of(tmp_path / "log", (3, 0, b"a" * SECTOR), (3, 0, b"b" * SECTOR), (0, 1, b""), flushed=3)
    assert lose_power(card, log, random.Random(1)) == (0, 0)
    assert sector(card, 3) == b"b" * SECTOR


def test_of_the_rest_each_write_is_there_or_not(card: Path, tmp_path: Path) -> None:
    late = [(number, 0, bytes([number]) * SECTOR) for number in range(1, 41)]
    log = log_of(tmp_path / "log", *late, flushed=0)
    writes, lost = lose_power(card, log, random.Random(1))
    missing = sum(sector(card, number) == bytes(SECTOR) for number in range(1, 41))
    assert (writes, lost) == (40, missing)
    assert 0 < missing < 40


def test_a_write_in_flight_is_lost(card: Path, tmp_path: Path) -> None:
    log = log_of(tmp_path / "log", (5, 0, b"x" * SECTOR * 2), flushed=0)
    log.write_bytes(log.read_bytes()[:-1])
    assert lose_power(card, log, random.Random(1)) == (1, 1)
    assert sector(card, 5) == bytes(SECTOR)


def test_before_the_first_write_nothing_changes(card: Path, tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    assert lose_power(card, tmp_path / "log", random.Random(1)) == (0, 0)
