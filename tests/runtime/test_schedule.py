"""The policy of where to look, with the real cascade, and with a detector that counts what it is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_fer.core import Detection, FaceBox, Frame, Image
from edge_fer.detection.cascade import CascadeDetector
from edge_fer.detection.motion import RECHECK_S
from edge_fer.detection.schedule import FaceSearch, KnownFace


@dataclass
class Brightest:
    """Finds a white square on black, of any size asked for; writes down each call."""

    slow_on_large: bool = True
    enough_px: float = 28.0
    blind: bool = False
    calls: list[tuple[tuple[int, ...], bool]] = field(default_factory=list)

    def detect(
        self, gray: Image, min_px: float, max_px: float = math.inf, *, expected: bool = False, coarse: bool = False
    ) -> list[Detection]:
        self.calls.append((gray.shape, expected))
        rows, columns = np.flatnonzero((gray > 200).any(axis=1)), np.flatnonzero((gray > 200).any(axis=0))
        if self.blind or len(rows) == 0:
            return []
        box = FaceBox(float(columns[0]), float(rows[0]), float(np.ptp(columns) + 1), float(np.ptp(rows) + 1))
        return [Detection(box)] if min_px * 0.95 <= box.w <= max_px and abs(box.w - box.h) < 0.2 * box.w else []


def boxes_of(search: FaceSearch, gray: Image, time_s: float, known: Sequence[KnownFace] = ()) -> list[FaceBox]:
    return [detection.box for _, detection in search.find(gray, time_s, known)]


def picture(x: int | None, y: int = 100, width: int = 60) -> Image:
    """A black frame of 640x480 with a white square that has some texture inside."""
    gray = np.zeros((480, 640), np.uint8)
    if x is not None:
        gray[y : y + width, x : x + width] = 255
        gray[y + width // 4 : y + width // 2, x + width // 4 : x + width // 2] = 210
    return gray


def test_the_first_frame_is_searched_whole() -> None:
    search = FaceSearch(Brightest(), 40, 0.5)
    (box,) = boxes_of(search, picture(300), 0.0)
    assert box.iou(FaceBox(300, 100, 60, 60)) > 0.85


@pytest.mark.parametrize("width", [42, 60, 85, 120, 170, 240, 350, 470])
@pytest.mark.parametrize("late", [0.0, 0.11, 0.31])
@pytest.mark.parametrize("slow_on_large", [True, False])
def test_a_new_face_of_any_size_is_found_in_time(width: int, late: float, slow_on_large: bool) -> None:
    search = FaceSearch(Brightest(slow_on_large=slow_on_large), 40, 0.5)
    for frame in range(round(late * 30) + 1):
        assert search.find(picture(None), frame / 30, []) == []
    for wait in range(1, 17):
        found = search.find(picture(120, 5, width), late + wait / 30, [])
        if found:
            break
    assert found
    assert wait / 30 <= 0.5 + 1 / 30


def test_no_frame_but_the_first_pays_for_all() -> None:
    detector = Brightest()
    search = FaceSearch(detector, 40, 0.5)
    chance = np.random.default_rng(0)
    sizes = []
    for frame in range(40):
        detector.calls.clear()
        search.find(chance.integers(0, 120, (480, 640)).astype(np.uint8) // 40 * 40, frame / 30, [])
        sizes.append(len(detector.calls))
    assert sizes[0] > 4
    assert max(sizes[1:]) <= 2


def test_a_scene_in_which_nothing_moves_costs_nothing_until_it_is_checked_again() -> None:
    detector = Brightest()
    search = FaceSearch(detector, 40, 0.5)
    gray = np.random.default_rng(1).integers(0, 120, (480, 640)).astype(np.uint8)
    noise = np.random.default_rng(2)
    search.find(gray, 0.0, [])
    detector.calls.clear()
    frame = 1
    while frame / 30 < RECHECK_S - 0.05:
        noisy = np.clip(gray + noise.normal(0, 4, gray.shape), 0, 255).astype(np.uint8)
        search.find(noisy, frame / 30, [])
        frame += 1
    assert detector.calls == []
    for later in range(frame, frame + 40):
        search.find(gray, later / 30, [])
    assert len(detector.calls) >= 5


def test_a_known_face_is_followed_and_confirmed_now_and_then() -> None:
    detector = Brightest()
    search = FaceSearch(detector, 40, 0.5)
    (box,) = boxes_of(search, picture(100), 0.0)
    known = KnownFace(1, box)
    detector.calls.clear()
    for frame in range(1, 31):
        known.box = box
        (box,) = boxes_of(search, picture(100 + 4 * frame), frame / 30, [known])
        assert box.iou(FaceBox(100 + 4 * frame, 100, 60, 60)) > 0.75
    near = [shape for shape, expected in detector.calls if expected]
    assert 4 <= len(near) <= 8  # five confirmations a second, not one a frame
    assert all(max(shape) < 150 for shape in near)


def test_a_face_that_the_detector_loses_is_followed_for_a_while(scene: Image) -> None:
    detector = Brightest()
    search = FaceSearch(detector, 40, 0.5)
    (box,) = boxes_of(search, picture(100), 0.0)
    known = KnownFace(1, box)
    search.find(picture(100), 1 / 30, [known])
    detector.blind = True
    kept = [bool(search.find(picture(100), frame / 30, [known])) for frame in range(2, 40)]
    assert all(kept[:12])
    assert not any(kept[25:])


def test_a_face_that_jumped_is_looked_for_in_a_wider_window() -> None:
    search = FaceSearch(Brightest(), 40, 0.5)
    (box,) = boxes_of(search, picture(100), 0.0)
    for frame in range(1, 4):
        found = boxes_of(search, picture(155), frame / 30, [KnownFace(1, box, frame - 1)])
        if found:
            break
    assert found and found[0].iou(FaceBox(155, 100, 60, 60)) > 0.8


def test_two_known_faces_do_not_become_one(demo_frames: list[Frame]) -> None:
    search = FaceSearch(CascadeDetector(), 40, 0.5)
    boxes = boxes_of(search, demo_frames[0].gray, 0.0)
    assert len(boxes) == 2
    # Both tracks claim the same place: it is one face, and the other is found where it is.
    found = boxes_of(search, demo_frames[1].gray, 1 / 15, [KnownFace(1, boxes[0]), KnownFace(2, boxes[0])])
    assert len(found) <= 2
    assert all(one.iou(other) < 0.3 for one in found for other in found if one is not other)


def test_a_detector_whose_cost_is_fixed_sees_the_whole_frame() -> None:
    detector = Brightest(slow_on_large=False)
    search = FaceSearch(detector, 40, 0.5)
    (box,) = boxes_of(search, picture(300, width=200), 0.0)
    assert box.iou(FaceBox(300, 100, 200, 200)) > 0.85


def test_the_same_frames_give_the_same_boxes(demo_frames: list[Frame]) -> None:
    def boxes() -> list[list[FaceBox]]:
        search = FaceSearch(CascadeDetector(), 40, 0.5)
        return [boxes_of(search, frame.gray, frame.time_s) for frame in demo_frames[:20]]

    assert boxes() == boxes()


shapes = st.tuples(st.integers(1, 90), st.integers(1, 90))


@settings(max_examples=40, deadline=None)
@given(shapes, st.lists(st.floats(-10, 100), min_size=1, max_size=6), st.integers(0, 255))
def test_any_frame_and_any_time_are_taken(shape: tuple[int, int], times: list[float], value: int) -> None:
    search = FaceSearch(CascadeDetector(), 20, 0.5)
    known = KnownFace(1, FaceBox(-30, 5, 40, 40), 1)
    for time_s in times:
        assert search.find(np.full(shape, value, np.uint8), time_s, [known]) == []


def sprinkled(gray: Image, blocks: list[tuple[int, int]]) -> Image:
    """The picture with some blocks of 16x16 pixels brighter."""
    changed = gray.copy()
    for row, column in blocks:
        changed[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] += 30
    return changed


def searched_sizes(before: Image, after: Image) -> list[tuple[int, ...]]:
    """What the detector is shown within the half second after a picture has given way to another."""
    detector = Brightest()
    search = FaceSearch(detector, 40, 0.5)
    for frame in range(20):
        search.find(before, frame / 30, [])
    detector.calls.clear()
    for frame in range(20, 35):
        search.find(after, frame / 30, [])
    return [shape for shape, _ in detector.calls]


def test_movement_that_is_too_small_for_a_face_is_passed_over() -> None:
    gray = np.random.default_rng(3).integers(0, 120, (480, 640)).astype(np.uint8)
    assert searched_sizes(gray, sprinkled(gray, [(10, 10)])) == []
    # As many blocks as a face has, but all over the frame: leaves in the wind.
    leaves = [(row, column) for row in range(2, 30, 9) for column in range(2, 40, 9)]
    assert searched_sizes(gray, sprinkled(gray, leaves)) == []
    face = [(row, column) for row in (10, 11, 12) for column in (10, 11, 12)]
    assert searched_sizes(gray, sprinkled(gray, face)) != []


def test_small_movement_brings_a_search_for_small_faces_only_and_only_there() -> None:
    gray = np.random.default_rng(3).integers(0, 120, (480, 640)).astype(np.uint8)
    face = [(row, column) for row in (4, 5, 6) for column in (4, 5, 6)]
    shapes = searched_sizes(gray, sprinkled(gray, face))
    assert shapes
    assert all(max(shape) <= 48 + 70 for shape in shapes)  # the movement, and half a face of its band on each side


def test_a_tile_in_which_something_always_moves_is_not_searched_in_every_frame() -> None:
    detector = Brightest()
    search = FaceSearch(detector, 40, 0.5)
    gray = np.zeros((480, 640), np.uint8)
    counts = []
    for frame in range(61):
        detector.calls.clear()
        # Only the upper left corner changes, in each frame: all the other tiles pass their slots on.
        gray[:96, :96] = 0 if frame % 2 else 120
        search.find(gray, frame / 30, [])
        counts.append(len(detector.calls))
    # In 2 s a tile has 4 slots of 0.5 s, or 6 of 0.3 s where others pass theirs on; 3 tiles have enough.
    assert 4 <= sum(counts[1:]) <= 6 * 3


def test_a_moving_known_face_is_no_motion() -> None:
    detector = Brightest()
    search = FaceSearch(detector, 40, 0.5)
    search.find(picture(None), 0.0, [])
    box = FaceBox(100, 100, 60, 60)
    known = KnownFace(1, box)
    detector.calls.clear()
    for frame in range(1, 45):
        known.box = box
        (box,) = boxes_of(search, picture(100 + 3 * frame), frame / 30, [known])
    # What it uncovers was seen before it came.
    assert [shape for shape, expected in detector.calls if not expected] == []
