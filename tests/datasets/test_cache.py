"""What was parsed once is read from the cache, and a cache that is damaged, stale or impossible does no harm."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from faces_csv import write_csvs
from labeled import labeled

import datasets
from datasets import Dataset, cache, fer2013
from edge_fer.core import Expression as E


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edge-fer"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The CSVs that were parsed."""
    files: list[Path] = []
    load_csv = fer2013.load_csv

    def watched(file: Path, *others: Path | None) -> dict[str, Dataset]:
        files.append(file)
        return load_csv(file, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(datasets, "load_csv", watched)
    return files


def same(one: dict[str, Dataset], other: dict[str, Dataset]) -> bool:
    """Whether all of two data sets is equal, and of the same types."""

    def arrays(splits: dict[str, Dataset]) -> list[np.ndarray | None]:
        found: list[np.ndarray | None] = []
        for data in splits.values():
            found += [data.images, data.also_in_training, data.subjects, data.sequences]
            for labels in data.labels.values():
                found += [labels.truth, labels.targets, labels.votes]
        return found

    def alike(a: np.ndarray | None, b: np.ndarray | None) -> bool:
        return a is b is None or (a is not None and b is not None and a.dtype == b.dtype and np.array_equal(a, b))

    heads = [[(name, data.heads) for name, data in splits.items()] for splits in (one, other)]
    return heads[0] == heads[1] and all(map(alike, arrays(one), arrays(other)))


def test_the_second_time_nothing_is_parsed(tmp_path: Path, home: Path, parsed: list[Path]) -> None:
    write_csvs(tmp_path, training=21, public=7)
    (tmp_path / "exclude.csv").write_text("row\n3\n")
    first, second = (datasets.load(tmp_path, exclude="exclude.csv") for _ in range(2))
    assert len(parsed) == 1
    assert len(first["Training"]) == 20
    assert same(first, second)
    assert len(list(home.iterdir())) == 1  # nothing half written is left beside it


def test_the_content_counts_and_not_the_place(tmp_path: Path, home: Path, parsed: list[Path]) -> None:
    write_csvs(tmp_path / "here", training=21, public=7)
    first = datasets.load(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert same(datasets.load(tmp_path / "there"), first)
    assert len(parsed) == 1


def change_label(folder: Path) -> None:
    path = folder / "fer2013.csv"
    path.write_text(path.read_text().replace("\n0,", "\n6,", 1))


def change_vote(folder: Path) -> None:
    path = folder / "fer2013new.csv"
    path.write_text(path.read_text().replace(",8,", ",7,", 1))


@pytest.mark.parametrize(
    "change",
    [
        change_label,
        change_vote,
        lambda folder: (folder / "fer2013new.csv").unlink(),
        lambda folder: (folder / "exclude.csv").write_text("row\n3\n"),
    ],
    ids=["label", "vote", "no votes", "rows left out"],
)
def test_another_content_is_another_cache(
    change: Callable[[Path], object], tmp_path: Path, home: Path, parsed: list[Path]
) -> None:
    write_csvs(tmp_path, training=21, public=7)
    before = datasets.load(tmp_path, exclude="exclude.csv")
    change(tmp_path)
    after = datasets.load(tmp_path, exclude="exclude.csv")
    assert len(parsed) == 2
    assert not same(before, after)
    assert same(datasets.load(tmp_path, exclude="exclude.csv"), after)
    assert len(parsed) == 2


def test_another_version_of_the_reader_is_another_cache(
    tmp_path: Path, home: Path, parsed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csvs(tmp_path, training=21, public=7)
    datasets.load(tmp_path)
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    datasets.load(tmp_path)
    assert len(parsed) == 2


def test_a_damaged_cache_is_made_anew(
    tmp_path: Path, home: Path, parsed: list[Path], chance: np.random.Generator
) -> None:
    write_csvs(tmp_path, training=3, public=1)
    right = datasets.load(tmp_path)
    (path,) = home.iterdir()
    whole = path.read_bytes()
    damaged = [b"", b"hello", whole[:300], whole[:-1], whole[len(whole) // 2 :]]
    damaged.append(whole.replace(b"(3, 48, 48, 1)", b"(2, 48, 48, 1)"))  # NumPy would read two images, and be content
    damaged.append(re.sub(rb"(PK\x01\x02.{6})\0\0", rb"\g<1>c\0", whole, flags=re.DOTALL))  # compressed as nobody knows
    for place in chance.permutation(len(whole))[:150].tolist():
        damaged.append(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
    for content in damaged:
        path.write_bytes(content)
        assert same(datasets.load(tmp_path), right)
    assert len(parsed) > 1 + 5
    done = len(parsed)
    path.write_bytes(b"hello")
    assert same(datasets.load(tmp_path), right)
    assert path.read_bytes() != b"hello"
    assert same(datasets.load(tmp_path), right)
    assert len(parsed) == done + 1


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, home: Path, parsed: list[Path], nobody: Callable[[], AbstractContextManager[None]]
) -> None:
    write_csvs(tmp_path, training=21, public=7)
    home.parent.write_text("a file where the folder should be")
    first, second = datasets.load(tmp_path), datasets.load(tmp_path)
    assert same(first, second)
    assert len(parsed) == 2
    home.parent.unlink()
    home.parent.mkdir(mode=0o555)
    tmp_path.chmod(0o755)
    with nobody():
        assert same(cache.cached([], lambda: first), first)
    assert list(home.parent.iterdir()) == []


def test_without_a_home_nothing_is_written(tmp_path: Path, parsed: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    write_csvs(tmp_path / "data", training=21, public=7)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for home in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", home)
        monkeypatch.setattr("os.path.expanduser", lambda path: path)  # nobody of that number, and no $HOME
        datasets.load(tmp_path / "data")
    assert len(parsed) == 2
    assert list(Path().iterdir()) == []


def test_people_and_sequences_are_kept(home: Path) -> None:
    known = labeled([E.ANGER, E.FEAR]).replace(subjects=np.array(["ann", "bob"]), sequences=np.array(["x", "y"]))
    kept = [cache.cached([], lambda: {"Training": known}) for _ in range(2)][1]
    assert kept["Training"] is not known
    assert same(kept, {"Training": known})
