"""Does one bundle give the same outputs in every runtime? A Markdown table for docs/runtimes.md.

    python benchmarks/compare_runtimes.py
    python benchmarks/compare_runtimes.py --python ~/legacy/bin/python --arm64 ~/arm64

The inputs are the bundle's self-test and faces of the demo. Each runtime runs in a process of its own, with three sets
of kernels: reference, optimized (without XNNPACK), and as it runs by default. All are compared with the reference
kernels of the runtime installed here, which comes first. --python names the interpreter of another environment, --arm64
a root folder of Debian for aarch64, run by qemu-aarch64-static; docs/runtimes.md tells how to make one.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

# So that it runs from a fresh clone.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Detection
from edge_fer.errors import DataError, EdgeFerError, InputMissingError, UnavailableError
from edge_fer.model.bundle import DEFAULT_MODEL, Bundle, load_bundle
from edge_fer.preprocess import Preprocessor
from edge_fer.sources.demo import DemoSource

QEMU = "qemu-aarch64-static"
RUNTIMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite.python.interpreter")
KERNELS = ("BUILTIN_REF", "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "AUTO")
REFERENCE, _, DEFAULT = KERNELS
NOT_INSTALLED = 3
EVERY_NTH_FRAME = 3

# Needs no edge_fer, so that any Python with numpy and a runtime can run it.
_WORKER = f"""
import importlib, importlib.metadata, platform, sys
import numpy as np

folder, name = sys.argv[1:]
try:
    runtime = importlib.import_module(name)
    package = name.split(".")[0].replace("_", "-")
    version = importlib.metadata.version(package)
except ImportError:
    sys.exit({NOT_INSTALLED})
outputs = {{}}
for kernels in {KERNELS}:
    resolver = runtime.OpResolverType[kernels]
    interpreter = runtime.Interpreter(folder + "/model.tflite", experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for tensor in np.load(folder + "/inputs.npy"):
        interpreter.set_tensor(source["index"], tensor[np.newaxis])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(target["index"])[0].copy())
    outputs[kernels] = np.stack(rows)
title = [platform.machine(), f"{{package}} {{version}}", platform.python_version(), np.__version__]
np.savez(folder + "/outputs.npz", title=np.array(title), **outputs)
"""


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", default=DEFAULT_MODEL, help="default: the package's")
    parser.add_argument("--faces", type=int, default=100, metavar="N", help="faces of the demo (default: 100)")
    parser.add_argument("--python", type=Path, action="append", default=[], metavar="EXE", help="may be given often")
    parser.add_argument("--arm64", type=Path, metavar="ROOT", help="root folder; each folder in ROOT/opt is a runtime")
    args = parser.parse_args(arguments)
    try:
        compare(load_bundle(args.bundle), args.faces, args.python, args.arm64)
    except EdgeFerError as error:
        print(f"compare_runtimes: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def compare(bundle: Bundle, faces: int, pythons: Sequence[Path], root: Path | None) -> None:
    """Print the table, a row for each runtime.

    Raises:
        InputMissingError: no such Python or root.
        UnavailableError: qemu is not installed.
        DataError: a runtime cannot run the model.
    """
    inputs = np.concatenate([bundle.selftest.inputs, demo_tensors(bundle, faces)])
    labels = len(bundle.metadata.heads[0].labels)
    first: NDArray[np.int64] | None = None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(bundle.model)
        np.save(folder / "inputs.npy", inputs)
        for command in [[sys.executable], *([str(python)] for python in pythons), *_emulated(root)]:
            for runtime in RUNTIMES:
                cells, outputs = _run(command, folder, runtime)
                if not cells:
                    continue
                if first is None:
                    first = outputs[REFERENCE]
                    _print_head(bundle, inputs, first)
                for kernels in KERNELS:
                    difference = abs(outputs[kernels] - first)
                    cells.append(f"{(difference == 0).mean():.1%}, {difference.mean():.2f}, {difference.max()}")
                same = outputs[DEFAULT][:, :labels].argmax(axis=1) == first[:, :labels].argmax(axis=1)
                print(f"| {' | '.join([*cells, f'{same.mean():.1%}'])} |", flush=True)


def _print_head(bundle: Bundle, inputs: NDArray[np.uint8], reference: NDArray[np.int64]) -> None:
    golden = (reference[: len(bundle.selftest.outputs)] == bundle.selftest.outputs).mean()
    print(f"Bundle {bundle.metadata.name}, SHA-256 {bundle.metadata.model_sha256[:12]}: {len(inputs)} faces,")
    print(f"{reference.size:,} outputs; {golden:.1%} of the golden outputs are what the reference kernels give here.")
    print("Fraction of equal outputs, mean and largest difference in LSB:\n")
    titles = ["machine", "runtime", "Python", "NumPy", "reference kernels", "optimized", "default (XNNPACK)"]
    print(f"| {' | '.join([*titles, 'same expression'])} |")
    print("|---" * 8 + "|")


def demo_tensors(bundle: Bundle, count: int) -> NDArray[np.uint8]:
    """Faces of the demo as the model sees them, uint8 (n, height, width, 1)."""
    height, width = bundle.selftest.inputs.shape[1:3]
    preprocessor = Preprocessor(bundle.metadata.preprocess, (height, width))
    faces = (
        preprocessor(frame.gray, Detection(face.box))
        for frame in islice(DemoSource(), 0, None, EVERY_NTH_FRAME)
        for face in frame.truth
    )
    return np.stack(list(islice(faces, count)))


def _emulated(root: Path | None) -> Iterator[list[str]]:
    """Commands that run the Python of an aarch64 root, one for each folder of packages in its /opt."""
    if root is None:
        return
    python, packages = root / "usr/bin/python3", sorted((root / "opt").glob("*"))
    if not python.exists() or not packages:
        raise InputMissingError(f"{root} needs usr/bin/python3 and folders of packages in opt; see docs/runtimes.md.")
    if shutil.which(QEMU) is None:
        raise UnavailableError(f"No {QEMU}: run `sudo apt install qemu-user-static`.")
    for folder in packages:
        yield [QEMU, "-L", str(root), "-E", f"PYTHONPATH={folder}", str(python)]


def _run(command: Sequence[str], folder: Path, runtime: str) -> tuple[list[str], dict[str, NDArray[np.int64]]]:
    """Title and outputs (n, logits) by kernels of one runtime; both empty where it is not installed."""
    try:
        child = subprocess.run(
            [*command, "-c", _WORKER, str(folder), runtime],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise InputMissingError(f"Cannot run {command[0]}: {error.strerror}.") from None
    if child.returncode == NOT_INSTALLED:
        return [], {}
    if child.returncode != 0:
        lines = child.stderr.strip().splitlines() or ["no reason given"]
        raise DataError(f"{runtime} of {command[-1]} ends with {child.returncode}: {lines[-1]}")
    with np.load(folder / "outputs.npz") as outputs:
        return outputs["title"].tolist(), {kernels: outputs[kernels].astype(np.int64) for kernels in KERNELS}


if __name__ == "__main__":
    sys.exit(main())
