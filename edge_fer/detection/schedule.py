"""Where to look for faces in a stream, and when: the policy that keeps a frame cheap.

Searching a whole 640x480 frame costs a Haar cascade fifty times what the expression network costs. So

* a face that was just seen is followed by its template, which costs next to nothing, and confirmed by the detector a
  few times a second, in a window around it and at its size. A face that is missed is looked for in a wider window;
* the rest of the frame is searched in tiles, a few in each frame, so that all of it has had its slot within
  ``new_face_s`` and no single frame pays for all;
* a tile in which nothing has moved since its last slot is passed over.

The same frames give the same answers: nothing depends on the clock or on chance.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edge_fer.core import Detection, FaceBox, FaceDetector, Image
from edge_fer.detection.motion import block_means, motion_mask, moved_region
from edge_fer.detection.template import Pyramid, Template
from edge_fer.detection.tiles import Region, Tile, tiles_of

WINDOW = 1.7
"""Side of the window around a known face, in widths of the face."""
WIDER = 0.5
"""What a miss adds to it,"""
MISSES = 2
"""up to so many: a face that jumped further is found by the tiles."""
SIZES = 1.3
"""A known face may have become larger or smaller by this factor."""
FINE = 1.8
"""By this factor a candidate of a tile may be larger than the face. It also makes the face so large in the image
that a cascade looks at every pixel of it, as in a search of the whole frame."""
CONFIRM_S = 0.2
"""A face is followed by its template for so long before the detector looks again."""
DOUBT_S = 0.5
"""A face that the detector does not confirm is followed for so long: it may have turned away or be half hidden."""
MIN_CORRELATION, MIN_CORRELATION_IN_DOUBT = 0.8, 0.9
"""Correlation with its template that makes it the same face; more is asked where the detector says no."""
REST = 0.6
"""Fraction of ``new_face_s`` that a tile rests after its slot, when passing over others brings it round sooner."""
SAME_FACE = 0.5
"""Overlap, as a fraction of the smaller box, from which two boxes are one face."""
BORDER = 0.25
"""A face that the frame's edge cuts is looked for beyond it, in repeated edge pixels: so far, in widths of the smallest
face that is looked for, while no other is known."""
PORTRAIT = 0.25
"""Smallest face that is looked for beyond the edges of a still image in which none was found, in shorter sides."""
MIN_IOU = 0.2
"""Overlap with where a known face was expected that makes a detection this face."""


@dataclass(slots=True, eq=False)
class KnownFace:
    """A face of the frames before, as far as finding it again is concerned: the search's part of a track.

    Attributes:
        key: tells it from the others, the same in every frame.
        box: where it is expected now.
        misses: in how many frames it was looked for in vain since it was last seen.
        template: what it looked like when the detector last saw it.
        confirmed_s: when that was.
        looked_s: when the detector last looked.
    """

    key: int
    box: FaceBox
    misses: int = 0
    template: Template | None = None
    confirmed_s: float = -math.inf
    looked_s: float = -math.inf


class FaceSearch:
    """Finds the faces of a stream's frames, one frame after another.

    Args:
        detector: looks into the windows and tiles.
        min_face_px: smallest face to look for, in pixels of the frame.
        new_face_s: within how many seconds of stream time a new face is to be found.

    Attributes:
        new_face_s: see above; may be changed at any time.
    """

    def __init__(self, detector: FaceDetector, min_face_px: int, new_face_s: float) -> None:
        self._detector = detector
        self._min_face_px = min_face_px
        self.new_face_s = new_face_s
        self.restart()

    def restart(self) -> None:
        """Forget the stream: the next frame is the first of another, and is searched whole."""
        self._frame = Pyramid(np.zeros((1, 1), np.uint8))
        self._tiles: list[Tile] = []
        self._next = 0
        self._slots = 0
        self._due = 0.0
        self._time_s = 0.0

    def still(self, gray: Image) -> list[Detection]:
        """All faces of an image that stands alone, uint8 (height, width), largest first.

        Where none is found it may be a portrait so tight that the edges cut the face: it is looked for once more.
        """
        found = self._detector.detect(gray, self._smallest_px(gray))
        if found:
            return found
        smallest_px = max(self._smallest_px(gray), PORTRAIT * min(gray.shape))
        border = int(PORTRAIT * min(gray.shape))
        region = Region(-border, -border, gray.shape[1] + border, gray.shape[0] + border, smallest_px, math.inf)
        self._frame = Pyramid(gray)
        return self._look(region)

    def find(self, gray: Image, time_s: float, known: Sequence[KnownFace]) -> list[tuple[int | None, Detection]]:
        """The faces of the next frame: the known ones that are still there, and new ones as their tiles' slots come.

        Args:
            gray: uint8 (height, width), of the same size as before; ``restart`` comes before another.
            time_s: stream time of the frame.
            known: faces that are expected. What is learned about finding them again is written into them.

        Returns:
            Each face with the key of the known face that it is, no two of one face; None for one that is new, or of
            which the search does not know.
        """
        self._frame = Pyramid(gray)
        found: list[tuple[int | None, Detection]] = []
        taken: list[FaceBox] = []
        for face in known:
            detection = _first_other(self._again(face, time_s), taken)
            if detection is not None:
                taken.append(detection.box)
                found.append((_owner(detection.box, face, known), detection))
        candidates = self._sweep(time_s, taken)
        for candidate in candidates:
            # A second look, with the face in the middle and at its own size, gives the same box as later frames will,
            # and sorts out what only looked like a face between two others.
            detection = _first_other(self._near(candidate.box, expected=False), taken)
            if detection is not None:
                taken.append(detection.box)
                found.append((None, detection))
        return found

    def _again(self, face: KnownFace, time_s: float) -> list[Detection]:
        """A known face in this frame: by its template, or where that is not enough by the detector."""
        if face.template is not None and 0 <= time_s - face.looked_s < CONFIRM_S:
            detection = face.template.find(self._frame, MIN_CORRELATION)
            if detection is not None:
                return [detection]
        detections = self._near(face.box, face.misses)
        if detections:
            face.template = Template(self._frame, detections[0])
            face.confirmed_s = face.looked_s = time_s
        elif face.template is not None and 0 <= time_s - face.confirmed_s < DOUBT_S:
            face.looked_s = time_s
            detection = face.template.find(self._frame, MIN_CORRELATION_IN_DOUBT)
            return [] if detection is None else [detection]
        return detections

    def _near(self, box: FaceBox, misses: int = 0, *, expected: bool = True) -> list[Detection]:
        """Faces in the window around a box, best overlap first. With every miss it is wider, and searched faster."""
        detections = self._window(box, min(misses, MISSES), expected=expected)
        if not detections and expected and misses == 0:
            detections = self._window(box, 1, expected=True)
        return sorted(detections, key=lambda one: -one.box.iou(box))

    def _window(self, box: FaceBox, misses: int, *, expected: bool) -> list[Detection]:
        spread = SIZES * (1 + 0.1 * misses)
        half = (WINDOW + WIDER * misses) * box.w / 2
        x, y = box.center
        window = Region(
            left=int(x - half),
            top=int(y - half),
            right=int(x + half),
            bottom=int(y + half),
            min_px=max(box.w / (spread if expected else FINE), 0.8 * self._smallest_px(self._frame.level(0))),
            max_px=box.w * spread,
        )
        return self._look(window, expected=expected, coarse=misses > 1)

    def _sweep(self, time_s: float, taken: Sequence[FaceBox]) -> list[Detection]:
        """Faces in the tiles whose slot it is, where no face is known."""
        gray = self._frame.level(0)
        if not self._tiles:
            self._tiles = tiles_of(gray.shape, self._smallest_px(gray), whole=not self._detector.slow_on_large)
        count = len(self._tiles)
        step_s = min(max(0.0, time_s - self._time_s), self.new_face_s)
        self._time_s = time_s
        # The first frame of a stream is searched whole: people look at the first second.
        first = self._slots == 0
        self._due = count if first else min(count, self._due + count * step_s / self.new_face_s)
        blocks = block_means(self._frame)
        mask = motion_mask(blocks, taken)
        detections = []
        for _ in range(count):
            if self._due < 1:
                break
            tile = self._tiles[self._next]
            if not first and 0 <= time_s - tile.slot_s < REST * self.new_face_s:
                break
            tile.slot_s = time_s
            self._next = (self._next + 1) % count
            self._slots += 1
            region = moved_region(tile, blocks, mask, time_s)
            if region is not None:
                self._due -= 1
                if self._detector.slow_on_large and not taken:  # else it costs, or brings little
                    region = _beyond_edges(region, gray.shape)
                detections += self._look(region, taken, coarse=True)
        # What was passed over was free, and must not be saved up for one dear frame.
        self._due = min(self._due, 1.0)
        return detections

    def _look(
        self, region: Region, taken: Sequence[FaceBox] = (), *, expected: bool = False, coarse: bool = False
    ) -> list[Detection]:
        """Faces in a part of the frame, looked for in the coarsest image that still shows the smallest of them.

        Where the part reaches over the frame's edges, the edge pixels are repeated.
        """
        level = 0
        while region.min_px / 2 ** (level + 1) >= self._detector.enough_px:
            level += 1
        scale = 2.0**level
        left, top, right, bottom = (
            int(side / scale) for side in (region.left, region.top, region.right, region.bottom)
        )
        image = self._frame.level(level)
        height, width = image.shape
        # To the edge of the frame is to that of the image, which may be a part of a pixel further.
        frame_height, frame_width = self._frame.level(0).shape
        right = max(right, width) if region.right >= frame_width else right
        bottom = max(bottom, height) if region.bottom >= frame_height else bottom
        pixels = image[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
        if pixels.size == 0:
            return []
        over = max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width)
        if any(over):
            pixels = cv2.copyMakeBorder(pixels, *over, cv2.BORDER_REPLICATE).astype(np.uint8, copy=False)
        if taken:
            # Faces that are known are painted over: there is no other behind them, and nothing is dearer to search.
            pixels = pixels.copy()
            for box in taken:
                x, y = int(box.x / scale) - left, int(box.y / scale) - top
                pixels[max(0, y) : max(0, y + int(box.h / scale)), max(0, x) : max(0, x + int(box.w / scale))] = 128
        detections = self._detector.detect(
            pixels, region.min_px / scale, region.max_px / scale, expected=expected, coarse=coarse
        )
        return [detection.scaled(scale, left, top) for detection in detections]

    def _smallest_px(self, gray: Image) -> float:
        # A twentieth of the shorter side: else a photo of 20 megapixels would take a minute.
        shorter: int = min(gray.shape)
        return max(self._min_face_px, shorter / 20)


def _beyond_edges(region: Region, shape_hw: tuple[int, ...]) -> Region:
    """A tile's region, a little further out where it ends at an edge of the frame."""
    height, width = shape_hw
    border = int(BORDER * region.min_px)
    return dataclasses.replace(
        region,
        left=region.left - border * (region.left <= 0),
        top=region.top - border * (region.top <= 0),
        right=region.right + border * (region.right >= width),
        bottom=region.bottom + border * (region.bottom >= height),
    )


def _owner(box: FaceBox, face: KnownFace, known: Sequence[KnownFace]) -> int | None:
    """The key of the face that was looked for, unless what was found is rather another known face, or too far away."""
    overlap = box.iou(face.box)
    if overlap < MIN_IOU or any(box.iou(other.box) > overlap for other in known):
        return None
    return face.key


def _first_other(candidates: Sequence[Detection], taken: Sequence[FaceBox]) -> Detection | None:
    """The first candidate that is no face found already."""
    for candidate in candidates:
        if all(_overlap(candidate.box, box) < SAME_FACE for box in taken):
            return candidate
    return None


def _overlap(one: FaceBox, other: FaceBox) -> float:
    """Fraction of the smaller box that lies in the other, 0-1: a face within a face is none."""
    iou = one.iou(other)
    areas = one.area, other.area
    return iou * sum(areas) / (1 + iou) / min(areas)
