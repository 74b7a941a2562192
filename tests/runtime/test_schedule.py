"""The policy of where to look, with the real cascade, and with a detector that counts what it is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_fer.core import Detection, FaceBox, Frame, Image
from edge_fer.detection.cascade import CascadeDetector
from edge_fer.detection.motion import RECHECK_S
from edge_fer.detection.schedule import FaceSearch, KnownFace, _beyond_edges, _overlap
from edge_fer.detection.tiles import Region, tiles_of
from edge_fer.sources.demo import average_faces


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
    assert detector.calls[0][0] == (480, 640)


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


def test_a_face_that_was_missed_and_sits_still_is_found_two_seconds_later() -> None:
    """Nothing moves, so that nothing but the second look at a still tile can bring it."""
    detector = Brightest(blind=True)
    search = FaceSearch(detector, 40, 0.5)
    assert search.find(picture(300), 0.0, []) == []
    detector.blind = False
    found_s = next(frame / 30 for frame in range(1, 150) if search.find(picture(300), frame / 30, []))
    # All tiles are due at once then, and are worked off within the time of a new face.
    assert 1.5 < found_s <= 2.0 + 0.5 + 0.1


@pytest.mark.parametrize("levels", [8, -8, 12])
def test_a_faint_face_is_motion(levels: int) -> None:
    gray = np.random.default_rng(3).integers(20, 120, (480, 640)).astype(np.uint8)
    face = np.s_[160:224, 160:224]
    after = gray.copy()
    after[face] = after[face].astype(np.int16) + levels
    assert searched_sizes(gray, after) != []


def test_a_face_that_fades_in_is_motion_in_the_end() -> None:
    detector = Brightest()
    search = FaceSearch(detector, 40, 0.5)
    gray = np.full((480, 640), 60, np.uint8)
    search.find(gray, 0.0, [])
    detector.calls.clear()
    for frame in range(1, 50):
        gray[160:224, 160:224] = 60 + frame // 3  # a third of a level a frame: 3 in the 0.3 s of a slot
        search.find(gray, frame / 30, [])
    assert detector.calls != []


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("column", "motion"),
    # It reaches from the middle of block 10 to that of 14; a quarter of its width around it is hair, or shoulders.
    [(8, True), (9, False), (15, False), (16, True)],
)
def test_what_moves_beside_a_known_face_belongs_to_it(column: int, motion: bool, turned: bool) -> None:
    detector = Brightest()
    search = FaceSearch(detector, 40, 0.5)
    known = [KnownFace(1, FaceBox(168, 168, 64, 64), 0)]
    gray = picture(168, 168, 64)
    for frame in range(20):
        search.find(gray, frame / 30, known)
    detector.calls.clear()
    changed = sprinkled(gray, [(column, row) if turned else (row, column) for row in (11, 12, 13)])
    for frame in range(20, 40):
        search.find(changed, frame / 30, known)
    assert any(not expected for _, expected in detector.calls) == motion


@pytest.mark.parametrize(("height", "width"), [(480, 640), (720, 1280), (300, 200)])
def test_no_face_falls_between_two_tiles(height: int, width: int) -> None:
    regions = regions_of((height, width), 40)
    for side in np.geomspace(40, min(height, width), 30).round(1).tolist():
        fitting = [part for part in regions if part.min_px <= side <= part.max_px]
        for left in np.arange(0, width - side, 1.5):
            assert any(part.left <= left and left + side - 1 < part.right for part in fitting), (side, left)
        for top in np.arange(0, height - side, 1.5):
            assert any(part.top <= top and top + side - 1 < part.bottom for part in fitting), (side, top)


def test_a_candidate_is_looked_at_again_at_its_own_size() -> None:
    detector = Scripted([])
    search = FaceSearch(detector, 40, 0.5)
    search.find(picture(None), 0.0, [])
    detector.asked.clear()
    assert search._near(FaceBox(200, 200, 90, 90), expected=False) == []
    ((_, min_px, max_px, expected, coarse),) = detector.asked
    # What looked like a face in a tile may be nearly twice as large as the face, or a little smaller.
    assert (min_px, max_px) == pytest.approx((90 / 1.8, 90 * 1.3))
    assert (expected, coarse) == (False, False)


@settings(max_examples=200, deadline=None)
@given(st.integers(60, 1200), st.integers(60, 1600), st.floats(20, 80), st.tuples(*[st.floats(0, 1)] * 3))
def test_every_face_lies_whole_in_a_tile_of_its_size(
    height: int, width: int, smallest: float, place: tuple[float, float, float]
) -> None:
    shorter = min(height, width)
    regions = regions_of((height, width), smallest)
    if smallest >= shorter:
        assert regions == []
        return
    side = smallest + place[0] * (shorter - smallest)
    left, top = place[1] * (width - side), place[2] * (height - side)
    assert any(
        part.min_px <= side <= part.max_px
        # A tile begins and ends at whole pixels.
        and part.left <= left + 1e-6
        and part.top <= top + 1e-6
        and part.right > left + side - 1 - 1e-6
        and part.bottom > top + side - 1 - 1e-6
        for part in regions
    )
    for part in regions:
        assert 0 <= part.left < part.right <= width and 0 <= part.top < part.bottom <= height
        # Neither so large that it costs what a whole frame costs, nor so small that its overlap is most of it.
        tile_wh = part.right - part.left, part.bottom - part.top
        overlap = part.max_px + 1
        for tile, whole, faces in zip(tile_wh, (width, height), (7, 6), strict=True):
            assert tile <= 1.5 * faces * part.min_px + overlap
            assert tile >= min(whole, 0.66 * faces * part.min_px)
    sizes = [part.min_px for part in regions]
    assert sizes == sorted(sizes, reverse=True)  # large faces first
    assert max(part.max_px for part in regions) >= shorter


@pytest.mark.parametrize(
    ("other", "fraction"),
    [
        (FaceBox(0, 0, 40, 40), 1.0),
        (FaceBox(10, 10, 20, 20), 1.0),  # a face within a face
        (FaceBox(20, 0, 40, 40), 0.5),
        (FaceBox(30, 30, 40, 20), 1 / 8),  # 10 x 10 of 40 x 20
        (FaceBox(40, 0, 40, 40), 0.0),
        (FaceBox(-80, 0, 160, 30), 1.0 * 40 * 30 / 1600),
    ],
)
def test_overlap_is_the_fraction_of_the_smaller_box(other: FaceBox, fraction: float) -> None:
    assert _overlap(FaceBox(0, 0, 40, 40), other) == pytest.approx(fraction)
    assert _overlap(other, FaceBox(0, 0, 40, 40)) == pytest.approx(fraction)


@dataclass
class Scripted:
    """Gives the same boxes of the frame whatever it is shown, and writes down what it is asked."""

    faces: list[FaceBox]
    slow_on_large: bool = True
    enough_px: float = 28.0
    asked: list[tuple[Image, float, float, bool, bool]] = field(default_factory=list)

    def detect(
        self, gray: Image, min_px: float, max_px: float = math.inf, *, expected: bool = False, coarse: bool = False
    ) -> list[Detection]:
        self.asked.append((gray.copy(), min_px, max_px, expected, coarse))
        return [Detection(box) for box in self.faces]


def test_of_two_faces_in_its_window_a_known_face_is_the_nearer_one() -> None:
    detector = Scripted([])
    search = FaceSearch(detector, 40, 0.5)
    search.find(picture(None), 0.0, [])
    # The window of a face at (200, 100) begins at (179, 79).
    detector.faces = [FaceBox(45, 21, 60, 60), FaceBox(25, 21, 60, 60)]
    found = search.find(picture(None), 1 / 30, [KnownFace(1, FaceBox(200, 100, 60, 60))])
    assert found == [(1, Detection(FaceBox(204, 100, 60, 60)))]


@pytest.mark.parametrize(
    ("misses", "windows"),
    [(0, [(102, 1.3, False), (132, 1.43, False)]), (1, [(132, 1.43, False)]), (2, [(162, 1.56, True)])],
)
@pytest.mark.parametrize("more", [0, 5])
def test_with_every_miss_the_window_is_wider_up_to_a_limit(
    misses: int, windows: list[tuple[int, float, bool]], more: int
) -> None:
    detector = Scripted([])
    search = FaceSearch(detector, 40, 0.5)
    search.find(picture(None), 0.0, [])
    detector.asked.clear()
    search.find(picture(None), 1 / 30, [KnownFace(1, FaceBox(200, 200, 60, 60), misses + (more if misses == 2 else 0))])
    assert len(detector.asked) == len(windows)
    for (gray, min_px, max_px, expected, coarse), (side, spread, fast) in zip(detector.asked, windows, strict=True):
        assert expected
        assert gray.shape == pytest.approx((side, side), abs=1)
        assert (min_px, max_px) == pytest.approx((60 / spread, 60 * spread))
        assert coarse == fast


def test_a_known_face_is_not_looked_for_at_sizes_far_below_the_smallest() -> None:
    detector = Scripted([])
    search = FaceSearch(detector, 40, 0.5)
    search.find(picture(None), 0.0, [])
    detector.asked.clear()
    search.find(picture(None), 1 / 30, [KnownFace(1, FaceBox(200, 200, 36, 36), 1)])
    assert [(min_px, max_px) for _, min_px, max_px, _, _ in detector.asked] == [
        (pytest.approx(0.8 * 40), pytest.approx(36 * 1.43))
    ]


@pytest.mark.parametrize(("shape", "smallest_px"), [((480, 640), 40), ((2000, 3000), 100), ((3000, 2000), 100)])
def test_the_smallest_face_of_a_large_picture_is_a_twentieth_of_its_shorter_side(
    shape: tuple[int, int], smallest_px: float
) -> None:
    detector = Scripted([])
    FaceSearch(detector, 40, 0.5).still(np.zeros(shape, np.uint8))
    # Nothing was found: it may be a portrait.
    assert [min_px for _, min_px, *_ in detector.asked][:1] == [smallest_px]


def regions_of(shape_hw: tuple[int, int], smallest_px: float) -> list[Region]:
    return [tile.region for tile in tiles_of(shape_hw, smallest_px, whole=False)]


def _scale(smallest_px: float) -> int:
    """How often a part is halved in which a detector of 28 pixels looks for faces of this size."""
    return 2 ** max(0, int(math.log2(smallest_px / 28)))


@pytest.mark.parametrize("box", [(192, 96, 64, 64), (96, 64, 256, 256), (-16, -32, 64, 64), (608, 448, 64, 64)])
def test_known_faces_are_painted_over_where_new_ones_are_looked_for(box: tuple[int, int, int, int]) -> None:
    x, y, w, h = box
    gray = np.full((480, 640), 60, np.uint8)
    gray[max(0, y) : y + h, max(0, x) : x + w] = 255
    detector = Scripted([])
    search = FaceSearch(detector, 40, 0.5)
    # The search of the whole first frame has tiles of all sizes; the known face is found where it is.
    search._near = lambda *_, **__: [Detection(FaceBox(*box))]  # type: ignore[method-assign]
    search.find(gray, 0.0, [KnownFace(1, FaceBox(*box), 0)])
    assert gray.max() == 255  # in copies
    parts = regions_of((480, 640), 40)
    assert len(parts) == len(detector.asked) >= 8
    for part, (tile, *_) in zip(parts, detector.asked, strict=True):
        scale = _scale(part.min_px)
        left, right = (min(max(side, part.left // scale * scale), part.right) for side in (x, x + w))
        top, bottom = (min(max(side, part.top // scale * scale), part.bottom) for side in (y, y + h))
        assert set(np.unique(tile)) <= {60, 128}
        assert (tile == 128).sum() == (right - left) // scale * ((bottom - top) // scale)


def test_a_box_of_a_tile_lies_where_it_was_seen() -> None:
    """At every level of the pyramid: the second look, at the face's own size, is around the same place."""
    detector = Scripted([])
    search = FaceSearch(detector, 40, 0.5)
    seen: list[FaceBox] = []
    search._near = lambda box, **_: seen.append(box) or []  # type: ignore[method-assign, func-returns-value]
    detector.faces = [FaceBox(3, 5, 30, 30)]
    search.find(picture(None), 0.0, [])
    parts = [_beyond_edges(part, (480, 640)) for part in regions_of((480, 640), 40)]
    assert min(part.left for part in parts) < 0
    scales = [_scale(part.min_px) for part in parts]
    assert {1, 2, 4, 8} <= set(scales)
    assert seen == [
        FaceBox((3 + int(part.left / scale)) * scale, (5 + int(part.top / scale)) * scale, 30 * scale, 30 * scale)
        for part, scale in zip(parts, scales, strict=True)
    ]


class Measuring(Brightest):
    """Finds a white square to a fraction of a pixel, by how white its border is."""

    def detect(self, gray: Image, *_: object, **__: object) -> list[Detection]:
        if not gray.any():
            return []
        white = gray / 255
        rows, columns = white.max(axis=1), white.max(axis=0)
        width, height = columns.sum(), rows.sum()
        x, y = (float((one * (np.arange(one.size) + 0.5)).sum() / one.sum()) for one in (columns, rows))
        return [Detection(FaceBox(x - width / 2, y - height / 2, float(width), float(height)))]


@pytest.mark.parametrize("size_wh", [(640, 480), (960, 540), (767, 575), (1366, 768), (1918, 1078), (641, 959)])
def test_a_box_lies_where_the_face_is_in_frames_that_do_not_halve_evenly(size_wh: tuple[int, int]) -> None:
    width, height = size_wh
    side = 3 * min(size_wh) // 8
    x, y = width - side - 20, height - side - 20
    gray = np.zeros((height, width), np.uint8)
    gray[y : y + side, x : x + side] = 255
    gray[y + side // 4 : y + side // 2, x + side // 3 : x + side // 2] = 0  # something to follow it by
    known = KnownFace(1, FaceBox(x, y, side, side))
    search = FaceSearch(Measuring(slow_on_large=False), 40, 0.5)
    (found,) = boxes_of(search, gray, 0.0)
    followed = [boxes_of(search, gray, number / 15, [known])[0] for number in range(1, 5)]
    assert known.template is not None
    for box in (found, *followed):
        assert box.center == pytest.approx((x + side / 2, y + side / 2), abs=0.005 * side)
        assert box.w == pytest.approx(side, rel=0.01)


def test_the_last_pixels_of_a_frame_are_searched_too() -> None:
    """Where they are only a part of the last pixel of the half that is looked into."""
    gray = np.zeros((575, 767), np.uint8)
    gray[-3:, -3:] = 255
    detector = Scripted([])
    detector.slow_on_large = False
    FaceSearch(detector, 200, 0.5).find(gray, 0.0, [])
    ((whole, *_),) = detector.asked
    assert whole.shape == (144, 192)
    assert whole[-1, -1] == 255


def cut_by_the_edge(frame: Image, edge: str) -> tuple[Image, FaceBox]:
    """A frame in which an edge cuts a fifth off a face of 200 pixels, and the whole face's box."""
    face = cv2.resize(average_faces()[1], (200, 200), interpolation=cv2.INTER_CUBIC)
    x, y = {"left": (-40, 140), "right": (480, 140), "top": (220, -40), "bottom": (220, 320)}[edge]
    canvas = np.pad(frame, 60, mode="edge")
    canvas[y + 60 : y + 260, x + 60 : x + 260] = face
    return canvas[60:-60, 60:-60].copy(), FaceBox(x, y, 200, 200)


@pytest.mark.parametrize("still", [True, False])
@pytest.mark.parametrize("edge", ["left", "right", "top", "bottom"])
def test_a_face_that_the_edge_cuts_is_found_and_followed(edge: str, still: bool) -> None:
    frame, box = cut_by_the_edge(np.full((480, 640), 128, np.uint8), edge)
    search = FaceSearch(CascadeDetector(), 40, 0.5)
    if still:
        assert max(one.box.iou(box) for one in search.still(frame)) > 0.5
        return
    known: list[KnownFace] = []
    for number in range(40):
        found = search.find(frame, number / 15, known)
        known = known or [KnownFace(1, one.box) for _, one in found if one.box.iou(box) > 0.5]
    assert known and [key for key, _ in found] == [1]


def test_what_is_beyond_the_edge_is_searched_only_where_nothing_was_found(scene: Image) -> None:
    detector = Scripted([FaceBox(100, 100, 80, 80)])
    assert len(FaceSearch(detector, 40, 0.5).still(scene)) == 1
    assert [gray.shape for gray, *_ in detector.asked] == [scene.shape]


@given(st.integers(20, 300), st.integers(20, 300), st.integers(0, 255))
def test_any_empty_still_has_no_face(height: int, width: int, value: int) -> None:
    assert FaceSearch(CascadeDetector(), 40, 0.5).still(np.full((height, width), value, np.uint8)) == []
