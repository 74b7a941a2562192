"""Face detectors: one small class a file, chosen by ``open_detector``. Imports wait until a detector is chosen."""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path

from edge_fer.config import DetectorKind, DetectorSettings
from edge_fer.core import FaceDetector
from edge_fer.errors import BundleError, ConfigError, InputMissingError, UnavailableError

LBP_CASCADE = Path("/usr/share/opencv4/lbpcascades/lbpcascade_frontalface.xml")
"""Where Debian and Raspberry Pi OS put it. OpenCV's wheels carry Haar cascades alone. It frames faces as the Haar
cascade does; ``lbpcascade_frontalface_improved`` frames only the middle of the face, and is dearer."""


_BY_ENDING: dict[str, DetectorKind] = {".xml": "haar", ".onnx": "yunet"}

log = logging.getLogger("edge_fer")


def open_detector(settings: DetectorSettings) -> FaceDetector:
    """The detector that the settings name; "auto" goes by the model's ending, and without a model is the package's own.

    Raises:
        ConfigError: it needs a model, and none is named.
        InputMissingError: the model is not there.
        DataError: the model is not one of this detector.
        BundleError: likewise, for those that come in bundles.
        UnavailableError: this machine lacks what the detector needs.
    """
    # Not pathlib's, which fails where there is no such user.
    model = Path(os.path.expanduser(settings.model)) if settings.model else None  # noqa: PTH111
    match settings.kind:
        case "auto" if model:
            return open_detector(dataclasses.replace(settings, kind=_BY_ENDING.get(model.suffix.lower(), "ssd")))
        case "auto":
            try:
                return open_detector(dataclasses.replace(settings, kind="ssd"))
            except (BundleError, InputMissingError) as error:
                log.warning("%s Until then faces are looked for with OpenCV's Haar cascade, which finds fewer.", error)
                return open_detector(dataclasses.replace(settings, kind="haar"))
        case "haar":
            from edge_fer.detection.cascade import CascadeDetector

            return CascadeDetector(model)
        case "lbp":
            from edge_fer.detection.cascade import CascadeDetector

            if model is None and not LBP_CASCADE.is_file():
                raise UnavailableError(
                    f"There is no {LBP_CASCADE}: run `sudo apt install opencv-data`, or name a cascade with "
                    "--detector-model."
                )
            return CascadeDetector(model or LBP_CASCADE)
        case "ssd":
            from edge_fer.detection.ssd import SsdDetector

            return SsdDetector([model] if model else [])
        case "yunet":
            from edge_fer.detection.yunet import YuNetDetector

            return YuNetDetector(model or _no_model("yunet", "face_detection_yunet_2023mar.onnx of OpenCV's model zoo"))
        case "blazeface":
            from edge_fer.detection.blazeface import BlazeFaceDetector

            wanted = "MediaPipe's face_detection_full_range.tflite"
            return BlazeFaceDetector(model or _no_model("blazeface", wanted))


def _no_model(kind: str, wanted: str) -> Path:
    raise ConfigError(f"The detector {kind} needs a model: get {wanted}, and name it with --detector-model.")
