"""Video files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from edge_fer.core import Frame, Image
from edge_fer.errors import DataError


class VideoSource:
    """The frames of a video file, every one; implements ``core.FrameSource``. It can be iterated once.

    Args:
        path: anything that FFmpeg reads. That it exists has been checked.

    Raises:
        DataError: it is not a video. While iterating: it breaks off early.
    """

    live = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._closed = False
        # Each thread of the decoder keeps a frame of its own, and FFmpeg would take one for each core.
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        # A file can look like a video and still hold no frame, so the first one is fetched here.
        if not self._capture.isOpened() or not self._capture.grab():
            raise DataError(
                f"{path} is neither a picture nor a video that OpenCV can read. If it should be one, it is damaged or "
                "was not copied to its end."
            )
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        fps_known = 0 < fps <= 1000
        self.fps = fps if fps_known else 25.0
        # What the file says of itself; 0 or less where it does not know, like a recording that was never finished.
        self._frames_stated = self._capture.get(cv2.CAP_PROP_FRAME_COUNT) if fps_known else 0.0

    def __iter__(self) -> Iterator[Frame]:
        """Every frame in turn. ``Frame.time_s`` is the time it is shown at, so a varying frame rate is kept."""
        seq, time_s = 0, 0.0
        more = not self._closed
        while more:
            decoded, image = self._capture.retrieve()
            if not decoded:
                break
            shown_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if seq:  # some containers carry no times, or times that go back
                shown_s = shown_s if shown_s > time_s else time_s + 1 / self.fps
            time_s = max(0.0, shown_s)
            yield _frame(image.astype(np.uint8, copy=False), seq, time_s, str(self._path))
            del image  # before the next is made
            seq += 1
            more = self._capture.grab()
        if not self._closed:
            self._check_whole(seq, time_s + 1 / self.fps)

    def _check_whole(self, frames: int, end_s: float) -> None:
        # The stated length is a guess in healthy files too: containers round it, count frames that an edit list
        # hides, and include sound that outlasts the image. Compared in time, since a varying rate spoils the count.
        stated_s = self._frames_stated / self.fps
        if stated_s - end_s > max(0.5, 0.05 * stated_s):
            raise DataError(
                f"{self._path} ends after {frames} of about {self._frames_stated:.0f} frames: the file is cut short. "
                "The results up to there are complete."
            )

    def close(self) -> None:
        """End the iteration and give the file free."""
        self._closed = True
        self._capture.release()


def _frame(image: Image, seq: int, time_s: float, stream: str) -> Frame:
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
    return Frame(gray, seq, time_s, stream, color=lambda: image)
