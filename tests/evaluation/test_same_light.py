"""Faces in normalized light, or aligned by points: training, evaluation and a device see the same."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import datasets
from datasets.landmarks_file import marks_of, write_landmarks
from edge_fer.core import Detection, Frame, Image
from edge_fer.model.bundle import load_bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.preprocess.alignment import Alignment
from edge_fer.preprocess.illumination import Illumination
from edge_fer.recognizer import Recognizer
from edge_fer.sources.demo import average_faces
from evaluation.device import WholeImage


def test_training_and_device_see_the_same(bundle_with: Callable[..., Path], tmp_path: Path) -> None:
    """Of a face that is a whole image: as training gets it, and as the recognizer gives it to a model."""
    steps: tuple[Illumination, ...] = ("tan-triggs", "equalization")
    path = bundle_with(metadata=lambda table: table["preprocess"].update(illumination=list(steps)))
    bundle = load_bundle(path)
    assert bundle.metadata.preprocess.illumination == steps
    faces = np.stack(average_faces()[:3]).astype(np.uint8)
    for split in ("train", "validation"):
        for place, face in enumerate(faces):
            folder = tmp_path / "faces" / split / ("happy", "sad", "fear")[place]
            folder.mkdir(parents=True)
            cv2.imwrite(str(folder / "one.png"), face if split == "train" else face // 2)
    training = datasets.load(tmp_path / "faces", illumination=steps)["Training"].images
    classifier = TfliteClassifier(bundle)
    seen: list[NDArray[np.uint8]] = []
    classify = classifier.classify
    classifier.classify = lambda tensors: (seen.extend(tensors), classify(tensors))[1]  # type: ignore[method-assign]
    recognizer = Recognizer(WholeImage(0.0), classifier, min_face_px=1)
    for face in faces:
        recognizer.recognize(face)
    assert {one.tobytes() for one in seen} == {one.tobytes() for one in training}


@pytest.mark.parametrize("alignment", ["two-points", "five-points"])
def test_training_and_device_align_alike(alignment: Alignment, bundle_with: Callable[..., Path], data: Path) -> None:
    """By the landmarks of the file, and by those of a detector that marks the same."""
    folder = shutil.copytree(data, bundle_with().parent / "data")
    splits = datasets.load(folder)
    images, points = splits["Training"].images, np.array([14, 20, 31, 16, 24, 28, 19, 37, 31, 34], np.float32)
    every = np.concatenate([split.images for split in splits.values()])
    write_landmarks(folder / "landmarks.npz", every, np.tile(points, (len(every), 1)))
    training = datasets.load(folder, alignment=alignment)["Training"].images

    class Marking(WholeImage):
        def detect(self, gray: Image, *arguments: Any, **options: Any) -> list[Detection]:
            (face,) = super().detect(gray, *arguments, **options)
            return [dataclasses.replace(face, landmarks=marks_of(points))]

    path = bundle_with(metadata=lambda table: table["preprocess"].update(alignment=alignment))
    classifier = TfliteClassifier(load_bundle(path))
    seen: list[NDArray[np.uint8]] = []
    classify = classifier.classify
    classifier.classify = lambda tensors: (seen.extend(tensors), classify(tensors))[1]  # type: ignore[method-assign]
    recognizer = Recognizer(Marking(0.0), classifier, min_face_px=1)
    for image in images[:4]:
        recognizer.recognize(image[..., 0])
    assert [one.tobytes() for one in seen] == [one.tobytes() for one in training[:4]]
    assert not np.array_equal(training[:4], images[:4])


def test_quality_is_of_the_face_in_its_own_light(bundle_with: Callable[..., Path]) -> None:
    path = bundle_with(metadata=lambda table: table["preprocess"].update(illumination=["tan-triggs"]))
    recognizer = Recognizer(WholeImage(0.0), TfliteClassifier(load_bundle(path)), min_face_px=1)
    face = (average_faces()[0] * 0.1).astype(np.uint8)
    (result,) = recognizer.recognize(Frame(face, 0, 0.0, "dark", still=True)).faces
    assert result.quality.brightness == pytest.approx(face.mean() / 255)
