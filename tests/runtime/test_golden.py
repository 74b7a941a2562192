"""Golden events: a drawn scene through detector, crop and network gives the same events on every processor.

The network runs on the reference kernels, which are equal to the bit everywhere; nothing is resized on the way to the
detector. Made anew, after a change of the answers that is meant, by ``python tests/runtime/test_golden.py``.
"""

from __future__ import annotations

import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest

from edge_fer import Recognizer, to_events
from edge_fer.model.litert import Network, load_runtime
from edge_fer.sources.demo import DemoSource

ASSETS = Path(__file__).parents[1] / "assets"
VARYING = ("ts", "latency_ms", "device")


PART = {"haar": np.s_[:, :], "ssd": np.s_[40:280, 40:360]}
"""Of the scene, by detector: our own sees 320x240 pixels as they are."""


def events(model: str, detector: str) -> list[dict[str, Any]]:
    scene = cv2.imread(str(ASSETS / "scene.png"), cv2.IMREAD_GRAYSCALE)
    assert scene is not None
    with mock.patch("edge_fer.model.opening.Network", partial(Network, kernels="reference")):
        recognizer = Recognizer.load(model, detector=detector, min_face_px=28)
        result = recognizer.recognize(scene.astype(np.uint8, copy=False)[PART[detector]])
    return [{key: value for key, value in event.items() if key not in VARYING} for event in to_events([result])]


@pytest.mark.parametrize("detector", PART)
@pytest.mark.parametrize("model", ["accurate", "nano"])
def test_the_events_of_a_scene_are_the_golden_ones(model: str, detector: str) -> None:
    golden = json.loads((ASSETS / f"scene.{model}.{detector}.json").read_text(encoding="utf-8"))
    now = events(model, detector)
    assert len(now) == len(golden) == 2
    # tflite-runtime's reference kernels round a dense layer otherwise (docs/runtimes.md).
    slack = 0.05 if load_runtime().__name__.startswith("tflite_runtime") else 2e-4
    for event, wanted in zip(now, golden, strict=True):
        for key in ("confidence", "intensity", "valence", "arousal"):
            assert event.pop(key) == pytest.approx(wanted.pop(key), abs=slack)
        assert event.pop("probabilities") == pytest.approx(wanted.pop("probabilities"), abs=slack)
        assert event["quality"].pop("turn") == pytest.approx(wanted["quality"].pop("turn"), abs=2e-3)
        assert event == wanted


if __name__ == "__main__":
    frame = next(iter(DemoSource()))
    cv2.imwrite(str(ASSETS / "scene.png"), cv2.resize(frame.gray, (400, 300), interpolation=cv2.INTER_AREA))
    for name, kind in itertools.product(("accurate", "nano"), PART):
        text = json.dumps(events(name, kind), indent=1) + "\n"
        (ASSETS / f"scene.{name}.{kind}.json").write_text(text, encoding="utf-8")
