"""Tracks: numbers that stay, boxes that do not tremble, and the best pairs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.core import Detection, FaceBox
from edge_fer.detection.cascade import CascadeDetector
from edge_fer.detection.schedule import MIN_IOU, FaceSearch
from edge_fer.sources.demo import average_faces
from edge_fer.temporal.smoothing import ExpressionFilter, Smoothing
from edge_fer.tracking import MAX_GAP_S, BoxFilter, Tracker


def tracker() -> Tracker:
    return Tracker(lambda: ExpressionFilter(Smoothing()))


def at(x: float, y: float = 0.0, width: float = 100.0) -> FaceBox:
    return FaceBox(x, y, width, width)


def found(*boxes: FaceBox) -> list[tuple[int | None, Detection]]:
    """Faces of which the search knows no track."""
    return [(None, Detection(box)) for box in boxes]


def numbers(tracks: list) -> list[int]:
    return [track.number for track in tracks]


def test_faces_keep_their_numbers_while_they_move_past_each_other() -> None:
    tracks = tracker()
    for step in range(60):
        current, ended = tracks.update(found(at(step * 10.0), at(600 - step * 10.0, y=70)), step / 30)
        assert numbers(current) == [1, 2]
        assert ended == []


def test_a_short_gap_is_bridged_and_a_long_one_ends_the_track() -> None:
    tracks = tracker()
    tracks.update(found(at(0)), 0.0)
    assert tracks.update([], 0.3) == ([], [])
    assert tracks.known()[0].misses == 1
    current, ended = tracks.update(found(at(0)), 0.4)
    assert (numbers(current), numbers(ended)) == ([1], [])
    assert tracks.known()[0].misses == 0
    _, ended = tracks.update([], 0.4 + MAX_GAP_S + 0.01)
    assert numbers(ended) == [1]
    current, _ = tracks.update(found(at(0)), 2.0)
    assert numbers(current) == [2]


@pytest.mark.parametrize(
    ("moved", "same"),
    [(20, True), (50, True), (60, True), (75, False), (100, False)],  # overlaps of 0.67, 0.33, 0.25, 0.14 and 0
)
def test_a_quarter_of_overlap_keeps_a_track_and_a_seventh_does_not(moved: float, same: bool) -> None:
    tracks = tracker()
    tracks.update(found(at(0)), 0.0)
    current, ended = tracks.update(found(at(moved)), 0.1)
    assert numbers(current) == ([1] if same else [2])
    assert ended == []
    assert len(tracks.known()) == (1 if same else 2)


def test_a_face_that_swings_to_and_fro_by_half_its_width_stays_one_track() -> None:
    tracks = tracker()
    for frame in range(30):
        current, _ = tracks.update(found(at(50 * (frame % 2))), frame / 15)
        assert numbers(current) == [1]


@pytest.mark.parametrize(("later_s", "gone"), [(0.5, False), (0.51, True), (-0.5, False), (-0.51, True)])
def test_half_a_second_without_a_face_is_a_gap_and_more_is_its_end(later_s: float, gone: bool) -> None:
    tracks = tracker()
    tracks.update(found(at(0)), 10.0)
    _, ended = tracks.update([], 10.0 + later_s)
    assert numbers(ended) == ([1] if gone else [])


def test_misses_are_counted_frame_by_frame() -> None:
    tracks = tracker()
    tracks.update(found(at(0), at(500)), 0.0)
    for frame in range(1, 4):
        tracks.update(found(at(500)), frame / 10)
        assert [face.misses for face in tracks.known()] == [frame, 0]
    assert [face.key for face in tracks.known()] == [1, 2]


def test_end_all() -> None:
    tracks = tracker()
    tracks.update(found(at(0), at(500)), 0.0)
    assert numbers(tracks.end_all()) == [1, 2]
    assert tracks.known() == []


boxes = st.lists(st.builds(at, st.floats(0, 400), st.floats(0, 100), st.floats(40, 160)), max_size=5)


@given(boxes, boxes)
def test_faces_without_a_key_take_the_track_that_they_overlap_most(new: list[FaceBox], old: list[FaceBox]) -> None:
    tracks = tracker()
    before, _ = tracks.update(found(*old), 0.0)
    after, _ = tracks.update(found(*new), 0.0)
    taken = {track.number: box for track, box in zip(after, new, strict=True) if track in before}
    for track, box in zip(after, new, strict=True):
        overlaps = {old_track.number: box.iou(was) for old_track, was in zip(before, old, strict=True)}
        if track in before:
            assert overlaps[track.number] >= MIN_IOU
        for number, overlap in overlaps.items():
            # Who has another track, or a new one, lost this one to a face that overlaps it at least as much.
            if overlap >= MIN_IOU and overlap > overlaps.get(track.number, 0.0):
                was = old[numbers(before).index(number)]
                assert taken[number].iou(was) >= overlap


def test_the_key_of_the_search_decides_even_where_boxes_overlap_better_crosswise() -> None:
    tracks = tracker()
    tracks.update(found(at(0), at(100)), 0.0)
    current, _ = tracks.update([(2, Detection(at(0))), (1, Detection(at(100)))], 1 / 30)
    assert numbers(current) == [2, 1]
    current, _ = tracks.update([(None, Detection(at(20))), (1, Detection(at(80)))], 2 / 30)
    assert numbers(current) == [2, 1]


@pytest.mark.parametrize("apart", [0.0, 0.35, 0.7])
def test_two_faces_that_cross_keep_their_numbers(apart: float) -> None:
    """Through the real search and cascade: the nearer face hides the other, wholly where they pass at one height."""
    far, near = (cv2.resize(average_faces()[index], (side, side)) for index, side in ((0, 90), (3, 110)))
    backdrop = cv2.GaussianBlur(np.random.default_rng(5).integers(60, 180, (300, 640)).astype(np.uint8), (0, 0), 9)
    search, tracks = FaceSearch(CascadeDetector(), 40, 0.3), tracker()
    seen: dict[str, list[int]] = {"far": [], "near": []}
    for frame in range(100):
        gray = backdrop.copy()
        far_x, near_x, near_y = 60 + 4 * frame, 470 - 4 * frame, round(60 + apart * 100)
        gray[60:150, far_x : far_x + 90] = far
        gray[near_y : near_y + 110, near_x : near_x + 110] = near
        faces = search.find(gray, frame / 30, tracks.known())
        current, _ = tracks.update(faces, frame / 30)
        true_far, true_near = FaceBox(far_x, 60, 90, 90), FaceBox(near_x, near_y, 110, 110)
        if true_far.iou(true_near) > 0.1:
            continue  # which box is whose cannot be told from their places
        for name, true in (("far", true_far), ("near", true_near)):
            best = max(current, key=lambda track: track.box.iou(true), default=None)
            if best and best.box.iou(true) > 0.6:
                seen[name].append(best.number)
    assert len(seen["far"]) > 50 and len(seen["near"]) > 50
    assert set(seen["near"]) == {seen["near"][0]}
    # Who was hidden for longer than a gap comes back as somebody new, but never under the other's number.
    assert not set(seen["far"]) & set(seen["near"])
    assert apart < 0.7 or set(seen["far"]) == {seen["far"][0]}


def test_a_still_box_trembles_less() -> None:
    chance = np.random.default_rng(0)
    steadied = BoxFilter()
    raw, smooth = [], []
    for frame in range(300):
        x, y, width = (np.array([50, 60, 100]) + chance.normal(0, 2, 3)).tolist()
        box = steadied.update(FaceBox(x, y, width, width), frame / 30)
        raw.append((x, y, width))
        smooth.append((box.x, box.y, box.w))
    assert (np.std(smooth[30:], axis=0) < 0.7 * np.std(raw[30:], axis=0)).all()


def test_the_filter_is_that_of_its_paper() -> None:
    """Worked out by hand from Casiez et al., eq. 1 to 5: 2 Hz at rest, 4 Hz more for each width a second."""
    steadied = BoxFilter()
    assert steadied.update(at(0), 0.0) == at(0)
    # 10 pixels in 0.1 s are a width a second; of it 0.5569 is believed at first. 2 + 4 * 0.5569 = 4.2274 Hz, at which
    # 1 / (1 + 1 / (2 pi 4.2274 0.1)) = 0.7265 of the way is made.
    box = steadied.update(at(10), 0.1)
    assert (box.x, box.y, box.w, box.h) == pytest.approx((7.265, 0, 100, 100), abs=0.002)
    # The face stands still now. Left are 2.735 pixels, 0.2735 widths a second: a speed of 0.5569 + 0.5569 * (0.2735 -
    # 0.5569) = 0.3991, hence 3.5963 Hz and 0.6932 of the way.
    box = steadied.update(at(10), 0.2)
    assert box.x == pytest.approx(7.265 + 0.6932 * 2.735, abs=0.002)


def test_the_middle_stays_while_a_face_comes_nearer() -> None:
    steadied = BoxFilter()
    for frame in range(20):
        width = 100 + 4 * frame
        box = steadied.update(FaceBox(300 - width / 2, 200 - 0.6 * width, width, 1.2 * width), frame / 30)
        assert (box.x + box.w / 2, box.y + box.h / 2) == pytest.approx((300, 200))
    assert 100 < box.w < width


def test_a_moving_box_does_not_lag() -> None:
    steadied = BoxFilter()
    for frame in range(90):
        true = at(frame * 10.0)  # three widths a second
        box = steadied.update(true, frame / 30)
    assert box.iou(true) > 0.85


def test_a_box_that_grows_is_followed() -> None:
    steadied = BoxFilter()
    for frame in range(60):
        true = FaceBox(0, 0, 50 + 2 * frame, 60 + 2.4 * frame)
        box = steadied.update(true, frame / 30)
    assert box.iou(true) > 0.85
    assert box.h / box.w == pytest.approx(1.2)


def test_time_that_stands_still_gives_the_newest_box() -> None:
    steadied = BoxFilter()
    steadied.update(at(0), 1.0)
    assert steadied.update(at(40), 1.0) == at(40)
    assert steadied.update(at(80), 0.5) == at(80)


@given(st.lists(st.tuples(st.lists(st.floats(0, 600), max_size=4), st.floats(0, 100)), max_size=20))
def test_numbers_are_never_used_again_even_when_time_runs_backwards(frames: list[tuple[list[float], float]]) -> None:
    tracks = tracker()
    highest, gone = 0, set()
    for places, time_s in frames:
        current, ended = tracks.update(found(*map(at, places)), time_s)
        now = numbers(current)
        assert len(now) == len(places) == len(set(now))
        assert not gone & set(now)
        assert all(number <= highest + len(places) for number in now)
        highest = max([highest, *now])
        gone |= set(numbers(ended))
