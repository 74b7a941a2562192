"""What every loader keeps to, and what is particular to each."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from miniatures import MADE
from scipy.io import loadmat, savemat

from datasets.catalog import LAYOUTS, read_all, recognize
from datasets.sample import Sample, counted
from edge_fer.compound import COMPOUNDS
from edge_fer.core import Expression as E
from edge_fer.errors import DataError

NAMES = [layout.name for layout in LAYOUTS]


def samples_of(name: str, folder: Path) -> list[Sample]:
    """Of a miniature, which is recognized."""
    MADE[name](folder)
    layout, place = recognize(folder)
    assert layout.name == name
    return read_all(layout, place)


def test_there_is_a_miniature_of_each() -> None:
    assert sorted(MADE) == sorted(NAMES)
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_loader_keeps_to_this(name: str, tmp_path: Path) -> None:
    samples = samples_of(name, tmp_path)
    layout, place = recognize(tmp_path)
    again = read_all(layout, place)
    assert [(one.path, one.label, one.frame) for one in again] == [(one.path, one.label, one.frame) for one in samples]
    for sample in samples:
        assert sample.label is None or sample.label in layout.labels
        if name != "fer+":
            assert sample.expression == layout.labels.get(sample.label or "")
        assert sample.compound is None or sample.compound in COMPOUNDS.values()
        images = list(sample.images())
        assert len(images) > 1 if sample.is_video else len(images) == 1
        (height, width) = images[0].shape
        assert images[0].dtype == np.uint8
        if sample.landmarks is not None:
            assert sample.landmarks.dtype == np.float32 and sample.landmarks.shape[1] == 2
        if sample.box is not None:
            assert sample.box.clipped((height, width)).area > 0
        assert sample.intensity is None or 0 < sample.intensity <= 1
        assert sample.yaw_deg is None or -90 <= sample.yaw_deg <= 90
        for value in (sample.valence, sample.arousal):
            assert value is None or -1 <= value <= 1
        assert (sample.sequence is None) <= (sample.frame is None)
    assert any(one.label for one in samples)
    assert layout.splits == any(one.split == "train" for one in samples) or name == "folders"
    assert set(layout.counts) <= {
        *("images", "videos", "people", "sequences", "labeled", "labeled sequences", "train", "validation", "test")
    }
    assert all(count <= layout.counts.get(what, count) for what, count in counted(samples).items())
    assert layout.licence and layout.survey and layout.wants and layout.title


@pytest.mark.parametrize("name", NAMES)
def test_no_other_loader_takes_it_for_its_own(name: str, tmp_path: Path) -> None:
    MADE[name](tmp_path)
    _, place = recognize(tmp_path)
    known = [layout.name for layout in LAYOUTS if layout.recognizes(place)]
    # Class folders are a form of many sets, and are what is asked for last.
    assert [other for other in known if other != "folders"] == ([name] if name != "folders" else [])


@pytest.mark.parametrize("name", NAMES)
def test_folders_around_it_and_the_leavings_of_macos_do_not_matter(name: str, tmp_path: Path) -> None:
    inner = tmp_path / "download" / "a set"
    inner.mkdir(parents=True)
    MADE[name](inner)
    (tmp_path / "__MACOSX").mkdir()
    for path in list(inner.rglob("*.*g")):
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\26\7")
    layout, place = recognize(tmp_path)
    assert layout.name == name
    assert all(next(one.images()).size for one in read_all(layout, place))


def test_ck_plus(tmp_path: Path) -> None:
    samples = samples_of("ck+", tmp_path)
    assert counted(samples) == {"images": 15, "people": 2, "sequences": 3, "labeled": 10, "labeled sequences": 2}
    last = next(one for one in samples if one.path.name == "S005_001_00000005.png")
    assert (last.label, last.expression, last.subject, last.sequence, last.frame) == (
        *("happy", E.HAPPINESS, "S005", "S005_001", 5),
    )
    assert last.action_units == {6: 0.0, 12: 4.0}
    assert samples[0].action_units == {}
    assert last.landmarks is not None and last.landmarks.shape == (68, 2)
    assert {one.expression for one in samples} == {E.HAPPINESS, E.CONTEMPT, None}


def test_ck_plus_with_the_folders_of_its_archives(tmp_path: Path) -> None:
    MADE["ck+"](tmp_path / "x")
    for name, outer in (("Emotion", "Emotion_labels"), ("FACS", "FACS_labels"), ("Landmarks", "Landmarks2")):
        (tmp_path / "y" / outer).mkdir(parents=True)
        (tmp_path / "x" / name).rename(tmp_path / "y" / outer / name)
    (tmp_path / "y" / "Landmarks2").rename(tmp_path / "y" / "Landmarks")
    (tmp_path / "x" / "cohn-kanade-images").rename(tmp_path / "y" / "cohn-kanade-images")
    layout, place = recognize(tmp_path / "y")
    samples = read_all(layout, place)
    assert sum(one.landmarks is not None for one in samples) == 15
    assert sum(one.label is not None for one in samples) == 10
    assert sum(bool(one.action_units) for one in samples) == 3


def test_names_that_tell_all(tmp_path: Path) -> None:
    jaffe = samples_of("jaffe", tmp_path / "jaffe")
    assert [(one.subject, one.label) for one in jaffe] == [("KA", "AN"), ("KA", "HA"), ("NM", "NE"), ("NM", "SU")]
    kdef = {one.path.stem: one for one in samples_of("kdef", tmp_path / "kdef")}
    assert (kdef["AF01ANS"].subject, kdef["BF01HAHL"].subject) == ("F01", "F01")  # both series show one person
    assert (kdef["BF01HAHL"].yaw_deg, kdef["AM31NEFR"].yaw_deg, kdef["AF01ANS"].yaw_deg) == (45, -90, 0)
    assert kdef["AM31H"].label is None and kdef["AM31NEFR"].attributes == {"gender": "male"}
    front, side = reversed(samples_of("rafd", tmp_path / "rafd"))
    assert (front.yaw_deg, side.yaw_deg, side.expression, side.subject) == (0, -90, E.CONTEMPT, "42")
    assert side.attributes == {"group": "Moroccan", "gender": "male", "gaze": "left"}
    bu3dfe = samples_of("bu-3dfe", tmp_path / "bu")
    assert [(one.intensity, one.expression) for one in bu3dfe] == [(0.25, E.ANGER), (1.0, E.ANGER), (None, E.NEUTRAL)]


def test_multi_pie_tells_expressions_by_recording_and_poses_by_camera(tmp_path: Path) -> None:
    samples = {one.path.stem: one for one in samples_of("multi-pie", tmp_path)}
    told = {name: (one.label, one.expression, one.yaw_deg, one.illumination) for name, one in samples.items()}
    assert told == {
        "001_02_02_051_07": ("surprise", E.SURPRISE, 0, "flash 07"),
        "001_02_03_110_00": ("squint", None, 90, "no flash"),
        "002_04_03_191_19": ("scream", None, -45, "no flash"),
        "002_01_02_240_05": ("smile", E.HAPPINESS, -90, "flash 05"),
    }
    assert samples["002_04_03_191_19"].attributes["camera"] == "above"


def test_tfd_has_five_splits(tmp_path: Path) -> None:
    samples = samples_of("tfd", tmp_path)
    assert [one.expression for one in samples] == [E.ANGER, E.HAPPINESS, E.NEUTRAL, E.SURPRISE, None, E.DISGUST]
    assert [one.split for one in samples] == ["train", "train", "validation", "test", None, "train"]
    assert samples[0].attributes == {"folds": "train validation test train train"}
    assert [one.subject for one in samples] == ["3", "3", "5", "6", "7", None]


def test_votes(tmp_path: Path) -> None:
    ferplus = samples_of("fer+", tmp_path / "fer+")
    assert [one.expression for one in ferplus[:3]] == [E.HAPPINESS, None, None]
    assert ferplus[1].votes == (5, 5, 0, 0, 0, 0, 0, 0, 0, 0)
    raf = samples_of("raf-db", tmp_path / "raf")
    assert raf[0].votes == (0, 0, 0.1, 0, 0.9, 0, 0) and raf[1].votes is None


def test_raf_db(tmp_path: Path) -> None:
    basic = samples_of("raf-db", tmp_path / "raf")
    assert [(one.expression, one.split) for one in basic] == [
        *((E.SADNESS, "train"), (E.HAPPINESS, "train"), (E.NEUTRAL, "test")),
    ]
    assert basic[0].attributes == {"gender": "female", "race": "Asian", "age": "40-69"}
    assert basic[0].box is None and basic[0].landmarks is None  # they count the photograph's pixels
    layout, place = recognize(tmp_path / "raf" / "compound")
    assert layout.name == "raf-db-compound"
    assert [one.compound for one in read_all(layout, place)] == ["happily surprised", "disgustedly surprised"]
    home = tmp_path / "raf" / "basic" / "Image"
    (home / "aligned").rename(home / "original")
    for path in (home / "original").iterdir():
        path.rename(path.with_name(path.name.replace("_aligned", "")))
    original = read_all(*recognize(tmp_path / "raf" / "basic"))
    assert original[0].box is not None and original[0].box.w == 60 and original[0].box.h == 68
    assert original[0].landmarks is not None and original[0].landmarks[4].tolist() == [58.5, 70]


def test_affectnet_in_both_layouts(tmp_path: Path) -> None:
    contempt, none, neutral = samples_of("affectnet", tmp_path / "old")
    assert (contempt.expression, contempt.valence, contempt.split) == (E.CONTEMPT, 0.5, "train")
    assert (none.expression, none.valence, neutral.split) == (None, None, "validation")
    assert contempt.box is not None and (contempt.box.x, contempt.box.h) == (10, 44)
    assert contempt.landmarks is not None and contempt.landmarks.shape == (68, 2)
    faces = samples_of("affectnet-faces", tmp_path / "new")
    assert [(one.label, one.valence, one.arousal) for one in faces] == [
        ("1", 0.25, None),
        ("6", 0.25, None),
        ("7", 0.25, None),
    ]


def test_mmi_and_emotionet_have_labels_that_are_none_of_ours(tmp_path: Path) -> None:
    happy, bored, unlabeled = samples_of("mmi", tmp_path / "mmi")
    assert (happy.label, happy.subject, happy.sequence, happy.is_video) == ("happiness", "S001", "1", True)
    assert (bored.label, unlabeled.label) == (None, None)
    emotionet = samples_of("emotionet", tmp_path / "emotionet")
    assert [(one.label, one.expression, one.compound) for one in emotionet] == [
        ("happy", E.HAPPINESS, None),
        ("appalled", None, "angrily disgusted"),
        (None, None, None),
    ]
    assert list(emotionet[1].action_units) == [4, 9, 10]


def test_expw_has_several_faces_in_a_photograph(tmp_path: Path) -> None:
    first, second, third = samples_of("expw", tmp_path)
    assert first.path == second.path != third.path
    assert first.box is not None and (first.box.x, first.box.y, first.box.w, first.box.h) == (3, 2, 37, 48)
    assert [one.expression for one in (first, second, third)] == [E.HAPPINESS, E.NEUTRAL, E.ANGER]


def test_clips_and_frames_of_films(tmp_path: Path) -> None:
    clips = samples_of("afew", tmp_path / "afew")
    assert [(one.split, one.sequence, one.is_video) for one in clips] == [
        ("train", "000046280", True),
        ("train", "000046281", True),
        ("validation", "000046282", True),
    ]
    faces = tmp_path / "faces" / "train_afew" / "Angry" / "000046280"
    faces.mkdir(parents=True)
    (tmp_path / "faces" / "val_afew").mkdir()
    for frame in range(3):
        cv2.imwrite(str(faces / f"{frame:06d}.jpg"), np.full((48, 48), frame, np.uint8))
    frames = read_all(*recognize(tmp_path / "faces"))
    assert [(one.sequence, one.frame) for one in frames] == [("000046280", 0), ("000046280", 1), ("000046280", 2)]
    sfew = samples_of("sfew", tmp_path / "sfew")
    assert sfew[0].sequence == "Airheads_000519240" and sfew[2].attributes == {"film": "About_A_Boy"}


def test_the_page_of_the_data_sets_is_the_catalog() -> None:
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
    rows = [
        f"| `{one.name}` | {one.title} | {one.wants} | {whole} | {one.licence} |"
        for one in LAYOUTS
        for whole in [", ".join(f"{count:,} {what}" for what, count in one.counts.items()) or "-"]
    ]
    assert "\n".join(rows) in page


def test_the_rows_of_expw_are_top_left_right_bottom(tmp_path: Path) -> None:
    """Three rows of the published list: all of its boxes are squares."""
    rows = ("amazed_actor_579.jpg 0 16 161 354 209 38.5907 6", "afraid_African_214.jpg 0 33 275 342 100 68.6817 2")
    MADE["expw"](tmp_path)
    (tmp_path / "label" / "label.lst").write_text("\n".join(rows) + "\n")
    for row in rows:
        (tmp_path / "image" / "origin" / row.split()[0]).touch()
    boxes = [one.box for one in read_all(*recognize(tmp_path))]
    assert [(box.x, box.y, box.w, box.h) for box in boxes if box] == [(161, 16, 193, 193), (275, 33, 67, 67)]


def test_what_lies_beside_the_classes_of_emotiw(tmp_path: Path) -> None:
    MADE["afew"](tmp_path / "afew")
    (tmp_path / "afew" / "Train_AFEW" / "AlignedFaces_LBPTOP_Points" / "Faces").mkdir(parents=True)
    assert len(read_all(*recognize(tmp_path / "afew"))) == 3
    MADE["sfew"](tmp_path / "sfew")
    MADE["sfew-faces"](tmp_path / "sfew" / "Train")
    assert len(read_all(*recognize(tmp_path / "sfew"))) == 3
    for name in ("Train", "Val"):  # as in the archives, faces alone
        MADE["sfew-faces"](tmp_path / "faces" / name)
    layout, place = recognize(tmp_path / "faces")
    assert layout.name == "sfew-faces" and len(read_all(layout, place)) == 3
    (tmp_path / "afew" / "Train_AFEW" / "Bored").mkdir()
    with pytest.raises(DataError, match="'Bored' is no label of afew"):
        read_all(*recognize(tmp_path / "afew"))


def test_affectnet_with_and_without_heads_of_its_lists(tmp_path: Path) -> None:
    MADE["affectnet"](tmp_path)
    path = tmp_path / "Manually_Annotated_file_lists" / "validation.csv"
    path.write_text(path.read_text().partition("\n")[2])
    assert [one.expression for one in read_all(*recognize(tmp_path))] == [E.CONTEMPT, None, E.NEUTRAL]


def test_mmi_with_a_name_space(tmp_path: Path) -> None:
    MADE["mmi"](tmp_path)
    path = tmp_path / "Sessions" / "1" / "S001-001.xml"
    path.write_text('<?xml version="1.0"?>' + path.read_text().replace("<file>", '<file xmlns="urn:mmi">'))
    assert read_all(*recognize(tmp_path))[0].label == "happiness"


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("labs_ex", [[1], [8], [7], [6], [-1], [2]], "8 is no label of TFD, which are 1 to 7"),
        ("labs_ex", [[1], [4]], "6 images and 2 labels do not belong together"),
    ],
)
def test_tfd_with_labels_that_are_none(name: str, values: list[list[int]], sentence: str, tmp_path: Path) -> None:
    MADE["tfd"](tmp_path)
    path = tmp_path / "TFD_48x48.mat"
    savemat(path, {**{key: value for key, value in loadmat(path).items() if key[0] != "_"}, name: np.array(values)})
    with pytest.raises(DataError, match=sentence):
        read_all(*recognize(tmp_path))


def test_mmi_without_the_files_that_tell_of_a_session(tmp_path: Path) -> None:
    MADE["mmi"](tmp_path)
    for path in (tmp_path / "Sessions" / "1").glob("*.xml"):
        path.unlink()
    first = read_all(*recognize(tmp_path))[0]
    assert (first.label, first.subject, first.attributes) == (None, "S001", {"view": "front"})


@pytest.mark.parametrize("around", ["Emotion", "images", "val", "train_set", "VL", "origin", "data"])
def test_class_folders_in_a_folder_of_any_name_are_class_folders(around: str, tmp_path: Path) -> None:
    MADE["folders"](tmp_path / around)
    for place in (tmp_path, tmp_path / around):
        layout, found = recognize(place)
        assert (layout.name, found) == ("folders", tmp_path / around)
