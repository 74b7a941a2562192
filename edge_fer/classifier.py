"""The network on the device: LiteRT on the CPU or the Edge TPU, and the self-test that guards it."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fer.bundle import Bundle, Head
from edge_fer.core import Picture, Prediction
from edge_fer.errors import BundleError, UnavailableError

log = logging.getLogger(__name__)

EDGETPU_LIBRARY = "libedgetpu.so.1"


def load_runtime() -> ModuleType:
    """The first TensorFlow Lite runtime that is installed: ai-edge-litert, tflite-runtime, TensorFlow.

    Raises:
        UnavailableError: none is.
    """
    for name in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise UnavailableError("No TensorFlow Lite runtime: run `pip install ai-edge-litert`.")


class TfliteClassifier:
    """Runs the model of a bundle; implements ``core.Classifier``.

    Args:
        bundle: the model with its card.
        threads: CPU threads of the interpreter.
        device: "cpu", or "edgetpu" for a Coral. Without a working Edge TPU the CPU does the work, and the log says so.

    Attributes:
        bundle: as given.
        size_hw: height and width of the tensors that the model takes.
        device: what really does the work.

    Raises:
        BundleError: the model cannot be loaded, does not fit its card, or fails its self-test.
        UnavailableError: no runtime is installed, or the model needs an Edge TPU and there is none.
    """

    def __init__(self, bundle: Bundle, threads: int = 1, device: str = "cpu") -> None:
        self.bundle = bundle
        runtime = load_runtime()
        delegates = []
        if device == "edgetpu":
            problem = probe_edgetpu()
            if problem is None:
                delegates = [_load_delegate(runtime)]
            else:
                device = "cpu"
                log.warning("The Edge TPU cannot be used (%s). The CPU does the work instead.", problem)
        self.device = device
        try:
            with quiet():
                self._interpreter = runtime.Interpreter(
                    model_content=bundle.model, num_threads=threads, experimental_delegates=delegates or None
                )
                self._interpreter.allocate_tensors()
            (self._input,) = self._interpreter.get_input_details()
            (self._output,) = self._interpreter.get_output_details()
        except (ValueError, RuntimeError) as error:
            if b"edgetpu-custom-op" in bundle.model and not delegates:
                raise UnavailableError(
                    f"{bundle.path} is compiled for the Edge TPU, and there is none. Use the CPU file of this model."
                ) from None
            raise BundleError(f"{bundle.path} cannot be loaded: {str(error).splitlines()[0]}.") from None
        batch, height, width, channels = self._checked_shape()
        self.size_hw = (height, width)
        self._tensor_shape = (batch, height, width, channels)
        self._check_selftest()

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads of the model; the first is what ``classify`` reports."""
        return self.bundle.card.heads

    def classify(self, tensors: Sequence[Picture]) -> list[Prediction]:
        """See ``core.Classifier``: uint8 (height, width, 1) each, as ``face_tensor`` gives them."""
        head = self.heads[0]
        predictions = []
        for tensor in tensors:
            probabilities = softmax(self.logits(tensor)[: len(head.labels)] / head.temperature)
            predictions.append(Prediction(dict(zip(head.labels, probabilities.tolist(), strict=True))))
        return predictions

    def logits(self, tensor: Picture) -> NDArray[np.float32]:
        """Logits of all heads, float32 (n,), for one uint8 (height, width, 1)."""
        scale, zero_point = self._output["quantization"]
        raw = self._invoke(tensor)
        logits: NDArray[np.float32] = (raw.astype(np.float32) - zero_point) * np.float32(scale or 1.0)
        return logits

    def _invoke(self, tensor: NDArray[Any]) -> NDArray[Any]:
        self._interpreter.set_tensor(self._input["index"], tensor.reshape(self._tensor_shape))
        self._interpreter.invoke()
        output: NDArray[Any] = self._interpreter.get_tensor(self._output["index"])[0]
        return output

    def _checked_shape(self) -> tuple[int, int, int, int]:
        shape = tuple(int(side) for side in self._input["shape"])
        path = self.bundle.path
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 1 or self._input["dtype"] != np.uint8:
            kind = np.dtype(self._input["dtype"]).name
            raise BundleError(f"{path} takes {kind} {shape}; edge-fer feeds uint8 (1, height, width, 1).")
        labels = sum(len(head.labels) for head in self.heads)
        outputs = int(np.prod(self._output["shape"]))
        if labels != outputs:
            raise BundleError(f"{path} has {outputs} outputs and {labels} labels in its card. Export it again.")
        return shape

    def _check_selftest(self) -> None:
        bundle = self.bundle
        if bundle.selftest_inputs.shape[1:] != self._tensor_shape[1:] or bundle.selftest_inputs.dtype != np.uint8:
            raise BundleError(f"{bundle.path} has a self-test of another shape than its model. Export it again.")
        outputs = np.stack([self._invoke(tensor) for tensor in bundle.selftest_inputs]).astype(np.float64)
        if outputs.shape != bundle.selftest_outputs.shape:
            raise BundleError(f"{bundle.path} has a self-test of another shape than its model. Export it again.")
        difference = float(np.abs(outputs - bundle.selftest_outputs).mean())
        if not difference <= bundle.selftest_tolerance:
            raise BundleError(
                f"{bundle.path} fails its self-test on this device: its outputs are {difference:.1f} quanta off, "
                f"{bundle.selftest_tolerance:.0f} are allowed. Export it again, or use another version of the runtime."
            )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the runtime's C++ chatter off stderr. It has no setting for it; what goes wrong is raised as well."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities over the last axis, float32, summing to 1."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float32] = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def probe_edgetpu() -> str | None:
    """Why the Edge TPU cannot be used, or None if it can.

    The delegate is loaded in a child process: with a wrong version of the library it does not fail, it crashes.
    """
    script = (
        "import sys; from edge_fer import classifier\n"
        "try: classifier._load_delegate(classifier.load_runtime())\n"
        "except Exception as error: print(error); sys.exit(1)"
    )
    try:
        child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return "its library hangs; unplug the Coral, plug it in again"
    if child.returncode == 0:
        return None
    if child.returncode < 0:
        signal = -child.returncode
        return f"{EDGETPU_LIBRARY} crashes with this runtime (signal {signal}); install a matching libedgetpu"
    reason = child.stdout.strip() or "no reason given"
    if "cannot open shared object" in reason:
        return f"{EDGETPU_LIBRARY} is not installed; see firmware_configs/README.md"
    return f"{reason}; is the Coral plugged in, and may this user use it?"


def _load_delegate(runtime: ModuleType) -> Any:
    # tensorflow.lite keeps the function one level deeper than the two runtimes.
    load = getattr(runtime, "load_delegate", None) or runtime.experimental.load_delegate
    return load(EDGETPU_LIBRARY)
