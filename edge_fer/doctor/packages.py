"""The libraries and the model, each tried in a process of its own: on an old processor they kill it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from edge_fer.doctor.machine import Finding, Level, Machine
from edge_fer.libraries import Child, diagnose

_OPENCV = "pip install --force-reinstall 'opencv-python-headless>=4.13,<5'"

_NUMPY = "pip install 'numpy>=2'"
_LITERT = "pip install --force-reinstall ai-edge-litert"
_OLD_NUMPY = ("0.", "1.")

NUMPY_SCRIPT = "import json, numpy; print(json.dumps({'version': numpy.__version__}))"

OPENCV_SCRIPT = """
import json
from importlib import metadata
import cv2
folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
found = hasattr(cv2, "CascadeClassifier") and folder
usable = found and not cv2.CascadeClassifier(folder + "haarcascade_frontalface_default.xml").empty()
names = {str(one.metadata["Name"]).lower().replace("_", "-") for one in metadata.distributions()}
print(json.dumps({"version": cv2.__version__, "cascade": bool(usable), "numpy": metadata.version("numpy"),
                  "packages": sorted(name for name in names if name.startswith("opencv-"))}))
"""

RUNTIME_SCRIPT = """
import importlib, json, sys
from importlib import metadata
for name in ("ai_edge_litert", "tflite_runtime"):
    try:
        importlib.import_module(name + ".interpreter")
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
    else:
        facts = {"name": name.replace("_", "-"), "version": metadata.version(name), "numpy": metadata.version("numpy")}
        print(json.dumps(facts))
        break
else:
    sys.exit("No module named 'ai_edge_litert'")
"""

MODEL_SCRIPT = """
import json, sys
from edge_fer.errors import EdgeFerError
from edge_fer.model.bundle import DEFAULT_MODEL, Bundle
from edge_fer.model.classifier import TfliteClassifier
from edge_fer.model.litert import load_runtime
load_runtime()
print("loaded", flush=True)
try:
    bundle = Bundle.load(sys.argv[1] or DEFAULT_MODEL)
    TfliteClassifier(bundle)
    lsb = bundle.selftest.check_golden(bundle.model, str(bundle))
    print(json.dumps({"name": bundle.metadata.name, "vectors": len(bundle.selftest.inputs), "lsb": lsb}))
except EdgeFerError as error:
    print(json.dumps({"error": str(error)}))
"""

DETECTOR_SCRIPT = """
import json, sys
from edge_fer.config import DetectorSettings
from edge_fer.detection import open_detector
from edge_fer.errors import EdgeFerError
print("loaded", flush=True)
try:
    open_detector(DetectorSettings(kind=sys.argv[1], model=sys.argv[2]))
    print(json.dumps({}))
except EdgeFerError as error:
    print(json.dumps({"error": str(error)}))
"""


def check_numpy(machine: Machine) -> Iterator[Finding]:
    """NumPy loads."""
    child = machine.run_python(NUMPY_SCRIPT)
    facts = _facts(child)
    yield _broken(machine, "numpy", child) if facts is None else Finding("green", facts["version"])


def check_opencv(machine: Machine) -> Iterator[Finding]:
    """OpenCV loads, has its Haar cascade, fits NumPy, and is alone."""
    child = machine.run_python(OPENCV_SCRIPT)
    facts = _facts(child)
    if facts is None:
        yield _broken(machine, "cv2", child)
        return
    version = tuple(int(part) for part in re.findall(r"\d+", facts["version"])[:2])
    others = [name for name in facts["packages"] if name != "opencv-python-headless"]
    if not facts["cascade"]:
        text = f"OpenCV {facts['version']} has no Haar cascade, or an empty one; OpenCV 4 has it:"
        yield Finding("red", text, machine.pip(_OPENCV))
    elif others and len(facts["packages"]) > 1:
        text = f"{' and '.join(facts['packages'])} lie in one folder and spoil one another. Keep one:"
        yield Finding("yellow", text, machine.pip(f"pip uninstall -y {' '.join(others)} && {_OPENCV}"))
    elif version >= (4, 12) and facts["numpy"].startswith(_OLD_NUMPY):
        text = f"OpenCV {facts['version']} is made for NumPy 2, and NumPy {facts['numpy']} is here:"
        yield Finding("yellow", text, machine.pip(_NUMPY))
    else:
        yield Finding("green", f"{facts['version']}, with its Haar cascade")


def check_runtime(machine: Machine) -> Iterator[Finding]:
    """A TensorFlow Lite runtime loads, and fits NumPy."""
    child = machine.run_python(RUNTIME_SCRIPT)
    facts = _facts(child)
    if facts is None:
        yield _broken(machine, "ai_edge_litert", child)
    elif facts["name"] == "tflite-runtime" and not facts["numpy"].startswith(_OLD_NUMPY):
        text = (
            f"tflite-runtime {facts['version']} is built for NumPy 1, and NumPy {facts['numpy']} is here. Take LiteRT:"
        )
        yield Finding("red", text, machine.pip(_LITERT))
    else:
        yield Finding("green", f"{facts['name']} {facts['version']}")


def check_model(machine: Machine) -> Iterator[Finding]:
    """The model is whole and computes what it did where it was made."""
    path = machine.settings.model.path
    child = machine.run_python(MODEL_SCRIPT, path)
    facts = _facts(child)
    if "loaded" not in child.stdout:
        yield Finding("yellow", "It could not be tried; mend the lines above first.")
    elif facts is None:
        text = f"The runtime does not get through the self-test ({child.reason}). Install it again:"
        yield Finding("red", text, machine.pip(_LITERT))
    elif "error" not in facts:
        exactly = f"within {facts['lsb']} LSB" if facts["lsb"] else "to the bit"
        yield Finding("green", f"{facts['name']}: self-test good, {facts['vectors']} golden vectors {exactly}")
    elif path:
        yield Finding("red", f"{facts['error']} To take the package's own:", "edge-fer config edit model.path accurate")
    else:
        cure = machine.pip("pip install --force-reinstall --no-deps edge-fer")
        yield Finding("red", f"{facts['error']} To install the package again:", cure)


def check_detector(machine: Machine) -> Iterator[Finding]:
    """The face detector that is configured can be opened; OpenCV's own is a matter of ``check_opencv``."""
    settings = machine.settings.detector
    if settings.kind == "haar" and not settings.model:
        return
    # What auto falls back from is what is to be told.
    falls_back = settings.kind == "auto" and not settings.model
    kind = "ssd" if falls_back else settings.kind
    child = machine.run_python(DETECTOR_SCRIPT, kind, settings.model)
    facts = _facts(child)
    haar = "edge-fer config edit detector.kind haar"
    level: Level = "yellow" if falls_back else "red"
    if "loaded" not in child.stdout:
        yield Finding("yellow", "It could not be tried; mend the lines above first.")
    elif facts is None:
        yield Finding("red", f"{kind} dies when it is opened ({child.reason}). To take OpenCV's:", haar)
    elif "error" in facts:
        yield Finding(level, f"{facts['error']} To take OpenCV's:", haar)
    else:
        yield Finding("green", f"{kind}: it opens" + (", self-test good" if kind == "ssd" else ""))


def _facts(child: Child) -> dict[str, Any] | None:
    """What a script has printed in its last line; None where it did not get there."""
    try:
        facts = json.loads((child.stdout.strip().splitlines() or [""])[-1])
    except ValueError:
        return None
    return facts if child.ok and isinstance(facts, dict) else None


def _broken(machine: Machine, module: str, child: Child) -> Finding:
    """A library that does not load: of itself, for another NumPy than it was built for, or because NumPy does not."""
    if module != "numpy" and not child.signal and "numpy" in child.reason.lower():
        numpy = _facts(machine.run_python(NUMPY_SCRIPT))
        if numpy is None:
            return Finding("yellow", "It could not be tried; mend NumPy first.")
        old = numpy["version"].startswith(_OLD_NUMPY)
        cure = _NUMPY if old else _OPENCV if module == "cv2" else _LITERT
        text = f"It does not fit NumPy {numpy['version']} ({child.reason.removeprefix('ImportError: ')}):"
        return Finding("red", text, machine.pip(cure))
    text, command = diagnose(module, child)
    return Finding("red", f"{text}:", machine.pip(command or "rpi-imager"))
