"""Miniature copies of data sets, each in the layout in which its owners have it: noise where the faces would be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from faces_csv import write_csvs
from scipy.io import savemat

MADE: dict[str, Callable[[Path], None]] = {}
"""By the name of the layout: writes one into an empty folder."""

Maker = Callable[[Path], None]


def miniature(name: str) -> Callable[[Maker], Maker]:
    def keep(make: Maker) -> Maker:
        MADE[name] = make
        return make

    return keep


def write_image(path: Path, size: tuple[int, int] = (48, 48)) -> None:
    """Noise that no other file has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = np.frombuffer(str(path.relative_to(path.parents[min(3, len(path.parents) - 1)])).encode(), np.uint8)
    assert cv2.imwrite(str(path), np.random.default_rng(seed.tolist()).integers(0, 256, size).astype(np.uint8))


def write_video(path: Path, frames: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 10 * number, np.uint8))
    writer.release()


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@miniature("ck+")
def ck_plus(folder: Path) -> None:
    """Three sequences of two people, two of them labeled: happy (with units), contempt."""
    codes = {"S005/001": "5", "S005/002": "2", "S010/001": None}
    for place, code in codes.items():
        stem = place.replace("/", "_")
        for frame in range(1, 6):
            name = f"{stem}_{frame:08d}"
            write_image(folder / "cohn-kanade-images" / place / f"{name}.png", (120, 160))
            points = "".join(f"   {40 + number % 9 * 8}.5e+00   {30 + number}.0e+00\n" for number in range(68))
            write_text(folder / "Landmarks" / place / f"{name}_landmarks.txt", points)
        (folder / "Emotion" / place).mkdir(parents=True)
        if code:
            write_text(folder / "Emotion" / place / f"{stem}_00000005_emotion.txt", f"   {code}.0000000e+00\n")
        units = "   6.0000000e+00   0.0000000e+00\n   1.2000000e+01   4.0000000e+00\n"
        write_text(folder / "FACS" / place / f"{stem}_00000005_facs.txt", units)


@miniature("ck+48")
def ck48(folder: Path) -> None:
    for label, subject in (("anger", "S010"), ("contempt", "S011"), ("happy", "S010")):
        for frame in (14, 15, 16):
            write_image(folder / label / f"{subject}_00{len(label)}_{frame:08d}.png")


@miniature("jaffe")
def jaffe(folder: Path) -> None:
    for name in ("KA.AN1.39", "KA.HA2.30", "NM.NE1.93", "NM.SU1.101"):
        write_image(folder / "jaffe" / f"{name}.tiff", (256, 256))
    write_text(folder / "jaffe" / "README", "not an image")


@miniature("tfd")
def tfd(folder: Path) -> None:
    """Six images; the fifth has neither label nor fold, the sixth no person."""
    images = np.random.default_rng(0).integers(0, 256, (6, 48, 48)).astype(np.uint8)
    folds = np.array([[1, 2, 3, 1, 1], [1, 1, 2, 3, 1], [2, 1, 1, 2, 3], [3, 1, 1, 1, 2], [0] * 5, [1] * 5], np.uint8)
    labels, people = (
        np.array([[1], [4], [7], [6], [-1], [2]], np.int16),
        np.array([[3], [3], [5], [6], [7], [-1]], np.int16),
    )
    folder.mkdir(exist_ok=True)
    savemat(folder / "TFD_48x48.mat", {"images": images, "labs_ex": labels, "labs_id": people, "folds": folds})


@miniature("fer2013")
def fer2013(folder: Path) -> None:
    write_csvs(folder, training=21, public=7)


@miniature("fer+")
def ferplus(folder: Path) -> None:
    """In each split a happy face, one on which nobody agrees, and one that is none."""
    for number, split in enumerate(("Train", "Valid", "Test")):
        home, rows = folder / "data" / f"FER2013{split}", []
        for row, votes in enumerate(("1,9,0,0,0,0,0,0,0,0", "5,5,0,0,0,0,0,0,0,0", "0,0,0,0,0,0,0,0,0,10")):
            name = f"fer{10 * number + row:07d}.png"
            rows.append(f'{name},"(0, 0, 48, 48)",{votes}')
            write_image(home / name)
        write_text(home / "label.csv", "\n".join(rows) + "\n")


@miniature("afew")
def afew(folder: Path) -> None:
    write_video(folder / "Train_AFEW" / "Angry" / "000046280.avi", 9)
    write_video(folder / "Train_AFEW" / "Happy" / "000046281.avi", 2)
    write_video(folder / "Val_AFEW" / "Surprise" / "000046282.avi", 5)


def _sfew(folder: Path, train: str, val: str) -> None:
    for split, name in ((train, "Airheads_000519240_00000005"), (train, "Airheads_000519240_00000025")):
        write_image(folder / split / "Angry" / f"{name}.png", (72, 90))
    write_image(folder / val / "Neutral" / "About_A_Boy_000356920_00000043.png", (72, 90))


@miniature("sfew")
def sfew(folder: Path) -> None:
    _sfew(folder, "Train", "Val")


@miniature("sfew-faces")
def sfew_faces(folder: Path) -> None:
    _sfew(folder, "Train_Aligned_Faces", "Val_Aligned_Faces_new")


@miniature("affectnet")
def affectnet(folder: Path) -> None:
    """Two images for training, one that is no face; one for validation without valence."""
    head = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    points = ";".join(f"{20 + number % 7};{30 + number % 5}.5" for number in range(68))
    for name, rows in (("training", [("1/a.jpg", 7, 0.5), ("1/b.jpg", 10, -2)]), ("validation", [("2/c.jpg", 0, -2)])):
        lines = [f"{image},10,12,40,44,{points},{label},{value},{value}" for image, label, value in rows]
        write_text(folder / "Manually_Annotated_file_lists" / f"{name}.csv", "\n".join([head, *lines]) + "\n")
        for image, _, _ in rows:
            write_image(folder / "Manually_Annotated" / "Manually_Annotated_Images" / image, (80, 90))


@miniature("affectnet-faces")
def affectnet_faces(folder: Path) -> None:
    for split, label in (("train_set", 1), ("train_set", 6), ("val_set", 7)):
        home, stem = folder / split, str(label)
        write_image(home / "images" / f"{stem}.jpg", (60, 60))
        (home / "annotations").mkdir(exist_ok=True)
        values = {"exp": np.array(str(label)), "val": np.array("0.25"), "aro": np.array("-2"), "lnd": np.full(136, 7.5)}
        for what, value in values.items():
            np.save(home / "annotations" / f"{stem}_{what}.npy", value)


@miniature("mmi")
def mmi(folder: Path) -> None:
    """A sequence of happiness, one of boredom (code 9), one without a label."""
    for session, (name, code) in enumerate((("S001-001", "4"), ("S001-002", "9"), ("S002-001", None)), 1):
        home = folder / "Sessions" / str(session)
        write_video(home / f"{name}.avi", 9)
        write_text(home / "session.xml", '<session><track view="0"/></session>')
        tag = f'<Metatag Name="Emotion" Value="{code}"/>' if code else '<Metatag Name="AU" Value="1"/>'
        write_text(home / f"{name}.xml", f"<file>{tag}</file>")


@miniature("emotionet")
def emotionet(folder: Path) -> None:
    """Happy, appalled, neither, and an image that is gone from the web."""
    rows = []
    for name, units in (("a.jpg", (12, 25)), ("b.jpg", (4, 9, 10)), ("c.jpg", (1,)), ("gone.jpg", (12, 25))):
        columns = ["1" if unit in units else "999" if unit == 60 else "0" for unit in range(1, 61)]
        rows.append("\t".join([f"https://example.org/N_1/{name}", "https://example.org/original", *columns]))
        if name != "gone.jpg":
            write_image(folder / "images" / name, (90, 80))
    write_text(folder / "emotioNet_challenge_files" / "dataFile_0001.txt", "\n".join(rows) + "\n")


@miniature("multi-pie")
def multipie(folder: Path) -> None:
    for name in ("001_02_02_051_07", "001_02_03_110_00", "002_04_03_191_19", "002_01_02_240_05"):
        subject, session, recording, camera, _ = name.split("_")
        home = folder / f"session{session}" / "multiview" / subject / recording / f"{camera[:2]}_{camera[2]}"
        write_image(home / f"{name}.png", (96, 128))


@miniature("bu-3dfe")
def bu3dfe(folder: Path) -> None:
    for name in ("F0001_AN01WH_F2D", "F0001_AN04WH_F2D", "F0001_AN04WH_F3D", "M0001_NE00AE_F2D"):
        write_image(folder / name[:5] / f"{name}.bmp", (128, 96))


@miniature("oulu-casia")
def oulu_casia(folder: Path) -> None:
    for place in ("VL/Strong/P001/Anger", "VL/Dark/P001/Anger", "NI/Weak/P002/Surprise"):
        for frame in range(6):
            write_image(folder / "B_OriginalImg" / "OriginalImg" / place / f"{frame:03d}.jpeg", (60, 80))


@miniature("rafd")
def rafd(folder: Path) -> None:
    for name in ("Rafd090_01_Caucasian_female_angry_frontal", "Rafd000_42_Moroccan_male_contemptuous_left"):
        write_image(folder / f"{name}.jpg", (102, 68))


@miniature("kdef")
def kdef(folder: Path) -> None:
    for name in ("AF01ANS", "BF01HAHL", "AM31NEFR", "AM31H"):
        write_image(folder / name[:4] / f"{name}.JPG", (76, 56))


def _raf(folder: Path, labels: dict[str, int]) -> None:
    write_text(folder / "EmoLabel" / "list_patition_label.txt", "".join(f"{k}.jpg {v}\n" for k, v in labels.items()))
    for name in labels:
        write_image(folder / "Image" / "aligned" / f"{name}_aligned.jpg", (100, 100))
        manual = "30.1\t40\n60\t40\n45\t55\n35\t70\n58.5\t70\n1\n2\n3\n"
        write_text(folder / "Annotation" / "manual" / f"{name}_manu_attri.txt", manual)
        write_text(folder / "Annotation" / "boundingbox" / f"{name}_boundingbox.txt", "10.0 12.5 70.0 80.5 \n")


@miniature("raf-db")
def raf_db(folder: Path) -> None:
    _raf(folder / "basic", {"train_00001": 5, "train_00002": 4, "test_0001": 7})
    _raf(folder / "compound", {"train_0001": 1, "test_0001": 11})
    rows = "train_00001.jpg 0 0 0.1 0 0.9 0 0\n"
    write_text(folder / "basic" / "EmoLabel" / "distribution_basic.txt", rows)


@miniature("raf-db-compound")
def raf_db_compound(folder: Path) -> None:
    _raf(folder / "compound", {"train_0001": 1, "train_0002": 10, "test_0001": 11, "test_0002": 1})


@miniature("raf-db-folders")
def raf_db_folders(folder: Path) -> None:
    for place in ("train/1/train_00001", "train/4/train_00002", "test/7/test_0001"):
        write_image(folder / "DATASET" / f"{place}_aligned.jpg", (100, 100))


@miniature("expw")
def expw(folder: Path) -> None:
    """Two faces in one photograph, one in another."""
    rows = "a_214.jpg 0 2 3 40 50 28.7 3\na_214.jpg 1 20 30 60 70 10.1 6\nb_1.jpg 0 0 0 60 60 9.5 0\n"
    write_text(folder / "label" / "label.lst", rows)
    for name in ("a_214", "b_1"):
        write_image(folder / "image" / "origin" / f"{name}.jpg", (80, 90))


@miniature("folders")
def folders(folder: Path) -> None:
    for place in ("train/angry/1", "train/happy/2", "test/angry/3", "validation/sad/4"):
        write_image(folder / f"{place}.jpg")
