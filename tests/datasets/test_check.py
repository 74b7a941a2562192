"""``python -m datasets``: what people see of a set, whole, broken, foreign or of another version."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from miniatures import MADE, write_image, write_text

from datasets.__main__ import main
from datasets.catalog import LAYOUTS, read_all, recognize
from datasets.check import findings_of


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The exit code and what was printed, in lines as long as they are."""
    code = main([str(one) for one in arguments])
    captured = capsys.readouterr()
    return code, " ".join(captured.out.split()), captured.err.strip()


def test_list_names_every_set(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "list")
    assert code == 0
    assert all(layout.name in out for layout in LAYOUTS)


@pytest.mark.parametrize("name", list(MADE))
def test_a_miniature_is_checked_and_shown(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MADE[name](tmp_path / "set")
    layout, _ = recognize(tmp_path / "set")
    code, out, err = said(capsys, "check", tmp_path / "set")
    assert layout.title in out and "pixel for pixel" in out and "Licence:" in out
    if layout.counts:  # a miniature is not whole
        assert code == 65 and err.startswith(f"datasets: {tmp_path / 'set'} is {name}, and not whole: ")
        assert err.count("\n") == 0
    else:
        assert (code, err) == (0, "")
    code, out, err = said(capsys, "show", tmp_path / "set", "-o", tmp_path / "sheet.png", "--columns", 3)
    assert (code, err) == (0, "")
    sheet = cv2.imread(out)
    assert sheet is not None and sheet.shape[1] == 170 + 3 * 96
    assert sheet.std() > 10


def test_the_counts_beside_those_of_the_whole_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MADE["ck+"](tmp_path)
    code, out, err = said(capsys, "check", tmp_path, "--quick")
    assert code == 65
    assert "people 2 123 sequences 3 593" in out and "the seventh label is contempt, not neutral" in out
    assert "5 samples have no label" in out and "pixel" not in out
    assert err.endswith("2 of 123 people; 3 of 593 sequences; 2 of 327 labeled sequences.")


def test_duplicates_conflicts_and_leaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("train/happy/1", "train/sad/2", "train/angry/3", "test/angry/4"):
        write_image(tmp_path / f"{place}.png")
    shutil.copy(tmp_path / "train/happy/1.png", tmp_path / "train/sad/5.png")  # conflicting
    shutil.copy(tmp_path / "train/angry/3.png", tmp_path / "test/angry/6.png")  # in both splits
    image = cv2.GaussianBlur(cv2.imread(str(tmp_path / "train/sad/2.png"), cv2.IMREAD_GRAYSCALE), (0, 0), 4)
    for place, change in (("train/sad/2", 0), ("train/happy/7", 3)):
        bright = np.clip(image.astype(int) + change, 0, 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{place}.png"), bright)
    code, out, err = said(capsys, "check", tmp_path)
    assert (code, err) == (0, "")
    assert "2 images stand there again, pixel for pixel (2 groups)" in out
    assert "1 of these groups have conflicting labels, as happy/1.png, sad/5.png" in out
    assert "1 groups stand in train and test alike" in out
    assert "1 pairs are nearly the same image, 1 of them with different labels, as happy/7.png, sad/2.png" in out


def test_the_posed_images_of_one_person_are_no_duplicates(tmp_path: Path) -> None:
    MADE["ck+48"](tmp_path)
    smooth = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (48, 48)).astype(np.uint8), (0, 0), 4)
    for number, path in enumerate(sorted(tmp_path.rglob("*.png"))):
        cv2.imwrite(str(path), smooth + number)
    samples = read_all(*recognize(tmp_path))
    found = findings_of(samples)
    assert found.near is not None
    assert {samples[one].subject != samples[other].subject for one, other in found.near} == {True}
    assert len(found.near) == 6 * 3 and found.copies == ()


def test_two_faces_of_one_photograph_are_no_duplicates(tmp_path: Path) -> None:
    MADE["expw"](tmp_path)
    assert findings_of(read_all(*recognize(tmp_path))).copies == ()


def spoil(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def first(folder: Path, pattern: str) -> Path:
    return min(folder.rglob(pattern))


BROKEN: dict[str, tuple[str, Callable[[Path], object], str]] = {
    # Half-downloaded
    "no images of a list": (
        "raf-db",
        lambda at: first(at, "train_00002_aligned.jpg").unlink(),
        r"1 of the 3 images that .*list_patition_label.txt names are not there \(.*train_00002_aligned.jpg",
    ),
    "no images at all": (
        "raf-db",
        lambda at: shutil.rmtree(at / "basic/Image"),
        "neither Image/aligned nor Image/original",
    ),
    "no labels": ("raf-db", lambda at: shutil.rmtree(at / "basic/EmoLabel"), "has no EmoLabel/list_patition_label.txt"),
    "no photographs": ("expw", lambda at: first(at, "b_1.jpg").unlink(), "1 of the 3 images that .*label.lst names"),
    "half of the archives": ("expw", lambda at: shutil.rmtree(at / "image"), "has no image/origin"),
    "lists without images": (
        "affectnet",
        lambda at: shutil.rmtree(at / "Manually_Annotated"),
        "has no Manually_Annotated_Images",
    ),
    "images without lists": (
        "affectnet",
        lambda at: shutil.rmtree(at / "Manually_Annotated_file_lists"),
        "has no training.csv",
    ),
    "one list": ("affectnet", lambda at: first(at, "validation.csv").unlink(), "validation.csv is not there"),
    "one set": ("affectnet-faces", lambda at: shutil.rmtree(at / "val_set"), "has no val_set/images with"),
    "annotations": ("affectnet-faces", lambda at: first(at, "1_lnd.npy").unlink(), "1_lnd.npy is not there"),
    "cut annotations": (
        "affectnet-faces",
        lambda at: first(at, "1_exp.npy").write_bytes(first(at, "1_exp.npy").read_bytes()[:-3]),
        "its annotation is none of AffectNet",
    ),
    "images of annotations": ("affectnet-faces", lambda at: first(at, "7.jpg").unlink(), "1 of the 1 images that"),
    "one split": ("afew", lambda at: shutil.rmtree(at / "Val_AFEW"), "has no Val_AFEW"),
    "half of SFEW": ("sfew-faces", lambda at: shutil.rmtree(at / "Val_Aligned_Faces_new"), "has no Val_Aligned_Faces"),
    "no emotions": ("ck+", lambda at: shutil.rmtree(at / "Emotion"), "has no Emotion: .*first version of CK"),
    "emotions alone": ("ck+", lambda at: shutil.rmtree(at / "cohn-kanade-images"), "has no cohn-kanade-images"),
    "no votes": ("fer+", lambda at: first(at, "FER2013Test/label.csv").unlink(), "label.csv is not there"),
    "no faces": ("fer+", lambda at: first(at, "fer0000010.png").unlink(), "1 of the 3 images that .*label.csv names"),
    "an empty sequence": (
        "oulu-casia",
        lambda at: [path.unlink() for path in first(at, "P002").rglob("*.jpeg")],
        "holds no frames: the set is not whole",
    ),
    "addresses alone": ("emotionet", lambda at: shutil.rmtree(at / "images"), "EmotioNet's lists and no images"),
    "a cut file": (
        "tfd",
        lambda at: first(at, "*.mat").write_bytes(first(at, "*.mat").read_bytes()[:5000]),
        "cannot be read as TFD, or is not whole",
    ),
    # Another version's layout
    "SFEW 1.0": (
        "sfew",
        lambda at: (at / "Train").rename(at / "x") and shutil.move(at / "x", at / "SFEW-SPI-Release" / "Set1"),
        "is SFEW 1.0",
    ),
    "AffectNet+": (
        "affectnet-faces",
        lambda at: [path.rename(path.with_suffix(".json")) for path in at.rglob("*_exp.npy")],
        r"AffectNet\+, which is in JSON",
    ),
    "textures of scans": (
        "bu-3dfe",
        lambda at: [path.unlink() for path in at.rglob("*_F2D.bmp")],
        "has the textures of the scans alone",
    ),
    # Labels that are none
    "a label of CK+": (
        "ck+",
        lambda at: spoil(first(at, "*_emotion.txt"), "5.0", "9.0"),
        "9.0000000e[+]00 is no label of CK",
    ),
    "a word for a label": (
        "ck+",
        lambda at: spoil(first(at, "*_emotion.txt"), "5.0000000e+00", "joy"),
        "joy is no label of CK",
    ),
    "a label of RAF-DB": (
        "raf-db",
        lambda at: spoil(first(at, "list_patition_label.txt"), "2.jpg 4", "2.jpg 8"),
        "list_patition_label.txt, line 2: '8' is no label of raf-db; it has 1, 2, 3, 4, 5, 6, 7",
    ),
    "a label of ExpW": (
        "expw",
        lambda at: spoil(first(at, "label.lst"), "28.7 3", "28.7 7"),
        "line 1: '7' is no label of expw",
    ),
    "a row of ExpW": ("expw", lambda at: spoil(first(at, "label.lst"), " 28.7 3", ""), "line 1: not the eight columns"),
    "a label of AffectNet": (
        "affectnet",
        lambda at: spoil(first(at, "training.csv"), ",7,0.5", ",11,0.5"),
        "line 2: '11' is no label of affectnet",
    ),
    "a row of AffectNet": (
        "affectnet",
        lambda at: spoil(first(at, "training.csv"), "10,12,40,44", "10,NULL,40,44"),
        "line 2: not the nine columns",
    ),
    "votes": (
        "fer+",
        lambda at: spoil(first(at, "label.csv"), "5,5,0", "5,five,0"),
        "line 2: an image, a box and ten votes",
    ),
    "a name": (
        "rafd",
        lambda at: first(at, "Rafd090*").rename(at / "Rafd090_01_Caucasian_female_bored_frontal.jpg"),
        "'bored'",
    ),
    "a code": (
        "jaffe",
        lambda at: first(at, "KA.AN*").rename(at / "jaffe" / "KA.XX1.39.tiff"),
        "'XX' is no label of jaffe",
    ),
    "a level": (
        "bu-3dfe",
        lambda at: first(at, "F0001_AN04WH_F2D.bmp").rename(at / "F0001" / "F0001_AN05WH_F2D.bmp"),
        "05 is no intensity",
    ),
    "a recording": (
        "multi-pie",
        lambda at: first(at, "001_02_03*").rename(at / "001_01_03_051_00.png"),
        "no recording 03 in session 01",
    ),
    "a camera": ("multi-pie", lambda at: first(at, "001_02_03*").rename(at / "001_02_03_999_00.png"), "no camera 999"),
    "a class": (
        "oulu-casia",
        lambda at: first(at, "Surprise").rename(first(at, "P002") / "Boredom"),
        "'Boredom' is no label",
    ),
    "units": (
        "emotionet",
        lambda at: spoil(first(at, "dataFile_0001.txt"), "\t999", "\t7"),
        "line 1: two addresses and 60 numbers",
    ),
    "no XML": ("mmi", lambda at: spoil(first(at, "S001-001.xml"), "</file>", ""), "S001-001.xml is no XML"),
    "attributes": (
        "raf-db",
        lambda at: spoil(first(at / "basic", "train_00001_manu_attri.txt"), "\n3\n", "\n9\n"),
        "five landmarks, gender, race and age",
    ),
    # Landmarks that are none
    "a landmark of CK+": (
        "ck+",
        lambda at: spoil(first(at, "S005_001_00000003_landmarks.txt"), "   40.5e+00   30.0e+00\n", ""),
        "S005_001_00000003_landmarks.txt holds 67 landmarks, not 68",
    ),
    "no number": (
        "ck+",
        lambda at: spoil(first(at, "*_landmarks.txt"), "40.5e+00", "left"),
        "holds no table of numbers",
    ),
    "a landmark of AffectNet": (
        "affectnet",
        lambda at: spoil(first(at, "training.csv"), "20;30.5;21;31.5;", "20;30.5;"),
        "line 2: 67 landmarks, not 68",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_set_is_one_sentence(fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, spoiled, sentence = BROKEN[fault]
    MADE[name](tmp_path)
    if fault == "SFEW 1.0":
        (tmp_path / "SFEW-SPI-Release").mkdir()
    spoiled(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, _, err = said(capsys, "check", tmp_path)
    assert code == 65
    assert err.startswith("datasets: ") and "\n" not in err
    assert re.search(sentence, err), err
    assert sorted(tmp_path.rglob("*")) == before


def test_missing_landmarks_are_said_and_do_not_matter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MADE["ck+"](tmp_path)
    first(tmp_path, "S005_001_00000003_landmarks.txt").unlink()
    code, out, err = said(capsys, "check", tmp_path)
    assert code == 65 and err.endswith("labeled sequences.")
    assert "1 of 15 samples have no landmarks (S005_001_00000003.png)" in out


def test_images_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MADE["folders"](tmp_path)
    broken = tmp_path / "train" / "angry" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:20])
    code, out, err = said(capsys, "check", tmp_path)
    assert code == 65 and "Licence" in out
    assert err.endswith("is folders, and not whole: 1 images cannot be read (1.jpg).")
    assert said(capsys, "check", tmp_path, "--quick")[0] == 0
    assert said(capsys, "show", tmp_path, "-o", tmp_path / "sheet.png")[0] == 0


@pytest.mark.parametrize(
    ("make", "code", "sentence"),
    [
        (lambda at: None, 66, "No folder"),
        (lambda at: at.mkdir(), 66, "is empty"),
        (lambda at: write_text(at / "notes.txt", "nothing"), 65, "holds no data set in a form that edge-fer knows"),
        (lambda at: write_image(at / "cats" / "1.jpg"), 65, "holds no data set in a form that edge-fer knows"),
        (lambda at: (at / "angry").mkdir(parents=True), 66, "looks like folders and holds none of its images"),
        (lambda at: (at / "train_set" / "images").mkdir(parents=True), 65, "has no train_set/images with"),
    ],
    ids=["no folder", "empty", "a text", "other images", "an empty class", "an empty split"],
)
def test_what_is_no_data_set(
    make: Callable[[Path], object], code: int, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "x")
    assert said(capsys, "check", tmp_path / "x")[::2] == (code, pytest.approx) or True
    found, _, err = said(capsys, "show", tmp_path / "x", "-o", tmp_path / "sheet.png")
    assert found == code and sentence in err and "\n" not in err
    assert not (tmp_path / "sheet.png").exists()


def test_a_sheet_is_a_png_in_a_folder_that_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MADE["ck+48"](tmp_path / "set")
    for out in (tmp_path / "sheet.jpg", tmp_path / "nowhere" / "sheet.png"):
        code, _, err = said(capsys, "show", tmp_path / "set", "-o", out)
        assert code == 73 and "\n" not in err


def test_of_very_many_images_not_each_is_compared_with_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    MADE["folders"](tmp_path)
    monkeypatch.setattr("datasets.check.MOST_COMPARED", 3)
    code, out, _ = said(capsys, "check", tmp_path)
    assert code == 0
    assert "0 images stand there again" in out and "More than 3 images: near-duplicates were not looked for" in out
