"""The FAT file system that flash.py writes, read back by itself and, where they are installed, by Linux's own tools."""

from __future__ import annotations

import contextlib
import io
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from cards import RASPBERRY, START, make_fat
from hypothesis import given, settings
from hypothesis import strategies as st

from card.errors import CANNOT_WRITE, FlashError
from card.fat import Fat, partitions

needs_tools = pytest.mark.skipif(
    not (shutil.which("fsck.fat") and shutil.which("mcopy")), reason="dosfstools or mtools is not installed"
)
NEW = {
    "user-data": b"#cloud-config\nhostname: a\n",
    "edge-fer/install.sh": b"#!/bin/sh\n",
    "edge-fer/wheels/opencv_python_headless-4.14.0.94-cp37-abi3-manylinux_2_28_aarch64.whl": bytes(range(256)) * 999,
    "edge-fer/wheels/empty.whl": b"",
    "edge-fer/Ünïcode \N{DUCK}.txt": b"names of all kinds",
}


def open_fat(path: Path) -> Fat:
    return Fat(io.BytesIO(path.read_bytes()), START)


def write(path: Path, files: dict[str, bytes]) -> None:
    with path.open("r+b") as file:
        Fat(file, START).replace(files)


@pytest.mark.parametrize(("bits", "megabytes"), [(16, 16), (32, 36)])
def test_what_is_written_is_read_and_the_rest_stays(tmp_path: Path, bits: int, megabytes: int) -> None:
    image = make_fat(tmp_path / "card.img", bits=bits, megabytes=megabytes)
    before = image.read_bytes()
    write(image, NEW)
    fat = open_fat(image)
    for name, content in {**RASPBERRY, **NEW}.items():
        assert fat.read(name) == content, name
    assert "edge-fer" in fat.names() and "kernel8.img" in fat.names()
    # Nothing outside the partition changes.
    after = image.read_bytes()
    assert after[:START] == before[:START]
    assert after[START + (megabytes << 20) :] == before[START + (megabytes << 20) :]


def test_a_folder_is_replaced_whole_and_its_room_is_free_again(tmp_path: Path) -> None:
    image = make_fat(tmp_path / "card.img")
    write(image, NEW)
    free = open_fat(image).free()
    for _ in range(5):
        write(image, NEW)
    assert open_fat(image).free() == free
    write(image, {"edge-fer/new": b"alone", "user-data": b""})
    fat = open_fat(image)
    assert (fat.read("edge-fer/new"), fat.read("user-data")) == (b"alone", b"")
    with pytest.raises(KeyError):
        fat.read("edge-fer/install.sh")


@needs_tools
@pytest.mark.parametrize(("bits", "megabytes"), [(16, 16), (32, 36)])
def test_linux_finds_no_fault_and_the_same_files(tmp_path: Path, bits: int, megabytes: int) -> None:
    image = make_fat(tmp_path / "card.img", bits=bits, megabytes=megabytes)
    write(image, NEW)
    write(image, {**NEW, "edge-fer/x": b"again"})
    partition = tmp_path / "partition"
    partition.write_bytes(image.read_bytes()[START : START + (megabytes << 20)])
    done = subprocess.run(["fsck.fat", "-n", partition], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("cmdline.txt", "user-data", "overlays/imx219.dtbo", *(name for name in NEW if name.isascii())):
        command = ["mcopy", "-n", "-i", partition, f"::{name}", "-"]
        assert subprocess.run(command, capture_output=True, check=True).stdout == {**RASPBERRY, **NEW}[name], name


@needs_tools
def test_a_partition_that_linux_made_is_read_and_written(tmp_path: Path) -> None:
    partition = tmp_path / "partition"
    with partition.open("wb") as file:
        file.truncate(40 << 20)
    subprocess.run(["mkfs.fat", "-F", "32", "-s", "1", "-n", "BOOTFS", partition], capture_output=True, check=True)
    source = tmp_path / "a name that is long.txt"
    source.write_bytes(b"by mtools")
    subprocess.run(["mcopy", "-i", partition, source, "::"], check=True)
    with partition.open("r+b") as file:
        Fat(file).replace(NEW)
    with partition.open("rb") as file:
        fat = Fat(file)
        assert fat.read("a name that is long.txt") == b"by mtools"
        assert fat.read("edge-fer/install.sh") == NEW["edge-fer/install.sh"]
    assert subprocess.run(["fsck.fat", "-n", partition], capture_output=True, check=False).returncode == 0


def test_the_firmware_finds_its_files_by_short_names(tmp_path: Path) -> None:
    """The board's own loader knows 8.3 names alone: those of config.txt and cmdline.txt must be theirs."""
    image = make_fat(tmp_path / "card.img")
    write(image, {"config.txt": b"a=1\n", "cmdline.txt": b"root=x\n"})
    content = image.read_bytes()
    assert b"CONFIG  TXT" in content
    assert b"CMDLINE TXT" in content


def test_a_full_card_is_refused_and_stays_as_it_was(tmp_path: Path) -> None:
    image = make_fat(tmp_path / "card.img")
    before = image.read_bytes()
    with pytest.raises(FlashError, match=r"full: 20\.0 MB are needed, 16") as caught:
        write(image, {"edge-fer/large": bytes(20_000_000)})
    assert caught.value.exit_code == CANNOT_WRITE
    assert image.read_bytes() == before


class CutOff(io.BytesIO):
    """A medium that is taken away after some bytes have been written."""

    left = 1 << 30
    writes: tuple[tuple[int, int], ...] = ()

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if self.left < len(data):
            raise OSError(5, "Input/output error")
        self.left -= len(data)
        self.writes += ((self.tell(), len(data)),)
        return super().write(data)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_fat(tmp_path_factory.mktemp("card") / "card.img").read_bytes()


@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=30, deadline=None)
def test_cut_off_before_the_root_directory_nothing_is_lost(share: float, card: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("card.fat.flush", lambda file: None)
        whole = CutOff(card)
        Fat(whole, START).replace(NEW)
        root = whole.getvalue().index(b"bootfs     \x08")
        before = [place for place, _ in whole.writes].index(root)
        medium = CutOff(card)
        medium.left = int(share * sum(size for _, size in whole.writes[: before + 1]))
        with pytest.raises(OSError, match="Input/output"):
            Fat(medium, START).replace(NEW)
    fat = Fat(io.BytesIO(medium.getvalue()), START)
    for name, content in RASPBERRY.items():
        assert fat.read(name) == content, name


def test_partitions_of_a_gpt(tmp_path: Path) -> None:
    image = io.BytesIO(bytes(START))
    image.seek(446)
    image.write(struct.pack("<B3xB3xII", 0, 0xEE, 1, 0xFFFFFFFF))
    image.seek(510)
    image.write(b"\x55\xaaEFI PART")
    image.seek(512 + 72)
    image.write(struct.pack("<QII", 2, 4, 128))
    image.seek(1024)
    image.write(b"\x28" * 32 + struct.pack("<QQ", 8192, 16383))
    assert partitions(image) == [(8192 * 512, 16384 * 512)]


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"\x55\xaa" * 2048, bytes(510) + b"\x55\xaa" + bytes(4096)])
def test_no_file_system_is_said(content: bytes) -> None:
    with pytest.raises(FlashError, match="FAT"):
        Fat(io.BytesIO(content))


@given(st.binary(min_size=512, max_size=2048))
@settings(max_examples=200, deadline=None)
def test_rubbish_is_refused_in_words(rubbish: bytes) -> None:
    rubbish = b"\xeb" + rubbish[1:510] + b"\x55\xaa" + rubbish[512:]
    with contextlib.suppress(FlashError):
        Fat(io.BytesIO(rubbish)).names()


def test_a_chain_in_a_circle_is_damage(tmp_path: Path) -> None:
    image = make_fat(tmp_path / "card.img", bits=32, megabytes=36)
    with image.open("r+b") as file:
        file.seek(START + 32 * 512 + 8)  # the entry of the root directory
        file.write(struct.pack("<I", 2))
    with pytest.raises(FlashError, match="damaged"):
        open_fat(image).names()
