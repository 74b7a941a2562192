"""Quantize a Keras model to full int8, check it against the float one, and make a bundle of it.

    python export/quantize.py runs/accurate/model.keras --data ~/fer2013 -o accurate.tflite

A TOML file of the same name beside the model (``model.toml``) says its name, heads and framing; ``python -m training
train`` writes it, for a model from elsewhere see export/README.md. Exit codes: 0 written, 1 the int8 model is not as
good as the float one and is not written, 65 bad data, 66 no such file, 73 cannot write, 78 wrong TOML.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import zipfile
from pathlib import Path

# So that `python export/quantize.py` finds the project's packages, as `python -m export` does.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"  # what it converts, whatever keras.json of other work says

from edge_fer.errors import DataError, EdgeFerError, OutputError
from export import microcontroller
from export.bundle import bundle, training_facts, write
from export.load import load
from export.remedies import quantize
from export.result import Export, Options


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="Keras model, with a TOML file of the same name beside it")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="data set for calibration and metrics")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.tflite")
    parser.add_argument("--calibration", type=int, default=500, metavar="N", help="faces to calibrate on (500)")
    parser.add_argument(
        "--io", choices=["uint8", "int8"], default="uint8", help="input type; edge-fer feeds uint8, int8 is for others"
    )
    parser.add_argument("--per-tensor", action="store_true", help="one scale a layer, for old Edge TPU compilers")
    parser.add_argument(
        "--correct-bias",
        action="store_true",
        help="take the mean error of int8 out of each layer from the start",
    )
    parser.add_argument(
        "--also", choices=["float32", "float16"], action="append", help="write OUT.float32.tflite too, bare"
    )
    parser.add_argument("--max-drop", type=float, default=0.5, metavar="POINTS", help="accuracy int8 may lose (0.5)")
    parser.add_argument(
        "--min-agreement", type=float, default=97.0, metavar="PERCENT", help="same answers as float demanded (97)"
    )
    parser.add_argument(
        "--min-gain", type=float, default=5.0, metavar="POINTS", help="better than always the commonest label by (5)"
    )
    parser.add_argument(
        "--max-ece", type=float, default=10.0, metavar="PERCENT", help="calibration error that is allowed (10)"
    )
    parser.add_argument("--report", type=Path, metavar="OUT.html", help="write a report, also as JSON, passed or not")
    parser.add_argument(
        "--c-array", type=Path, metavar="OUT.cc", help="write C++ for TensorFlow Lite Micro too: OUT.cc and OUT.h"
    )
    parser.add_argument("--force", action="store_true", help="overwrite files that are not an earlier bundle")
    args = vars(parser.parse_args(arguments))
    try:
        write(export(Options(**args | {"also": tuple(dict.fromkeys(args["also"] or ()))})))
    except EdgeFerError as error:
        print(f"quantize: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def export(options: Options) -> Export:
    """Quantize a model, compare it with float on PublicTest, and make a bundle of it.

    Raises:
        EdgeFerError: something given is not as it should be.
    """
    _check(options)
    return bundle(quantize(load(options)))


def _check(options: Options) -> None:
    """Refuse at once what would fail after a minute of work."""
    if options.calibration < 1:
        raise DataError(f"--calibration must be at least 1, not {options.calibration}.")
    for name in ("max_drop", "min_agreement", "min_gain", "max_ece"):
        if math.isnan(getattr(options, name)):
            raise DataError(f"--{name.replace('_', '-')} must be a number: nothing is above or below nan.")
    if options.report and options.report.suffix != ".html":
        raise OutputError(f"--report must end in .html, not {options.report.name!r}.")
    if options.c_array:
        microcontroller.check_name(options.c_array)
    training_facts(options.model)  # which are read again when the bundle is made
    for path in options.files():
        # An export again is how one works, and what fails the gate replaces nothing. Other files are somebody's.
        if path.exists() and not options.force and not _is_bundle(path):
            raise OutputError(f"{path} exists, and is not the bundle of an earlier export; --force overwrites it.")
        if not path.parent.is_dir():
            raise OutputError(f"Cannot write {path}: there is no folder {path.parent}.")


def _is_bundle(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "selftest.npz" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


if __name__ == "__main__":
    sys.exit(main())
