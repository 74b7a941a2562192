"""TensorFlow Lite on the device: the only file that makes an interpreter, and the only one that knows the runtimes."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import BundleError, UnavailableError
from edge_fer.libraries import about_import
from edge_fer.model.trial import limit_memory, why_it_dies

EDGETPU_LIBRARY = "libedgetpu.so.1"

Kernels: TypeAlias = Literal["optimized", "builtin", "reference"]
"""``optimized``: what the device runs, XNNPACK where it can. ``builtin``: without XNNPACK. ``reference``: slow, and in
LiteRT the same to the bit on every processor."""

_OPTIONAL = {"CONV_2D": (2,), "DEPTHWISE_CONV_2D": (2,), "FULLY_CONNECTED": (2,), "TRANSPOSE_CONV": (3,)}
"""Inputs that an operator can do without, by their place: biases. Recurrent ones can do without many."""
_RECURRENT = ("LSTM", "RNN", "SVDF")

_RESOLVERS = {"builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a graph says of one of its tensors.

    Attributes:
        name: in the graph.
        index: its number.
        shape: as declared.
        dtype: of its values.
        scale: 0.0 where it is not quantized, or has a scale for each channel.
        zero_point: the value that stands for 0.
        details: all that the runtime tells.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: type[np.generic]
    scale: float
    zero_point: int
    details: dict[str, Any]

    def real(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Quantized values in real units, float32; float values as they are."""
        values: NDArray[np.float32] = (raw.astype(np.float32) - self.zero_point) * np.float32(self.scale or 1.0)
        return values


class Network:
    """A graph in the runtime, ready to run.

    Args:
        model: the FlatBuffer.
        threads: CPU threads.
        kernels: which implementations of the operators.
        edgetpu: hand it to a Coral; see ``probe_edgetpu``, which comes first.
        keep_all: keep every tensor of the graph, not only its outputs, for ``value``.

    Attributes:
        inputs: of the graph.
        outputs: of the graph.

    Raises:
        BundleError: the runtime cannot load it.
        UnavailableError: no runtime is installed.
    """

    def __init__(
        self,
        model: bytes,
        threads: int = 1,
        kernels: Kernels = "optimized",
        *,
        edgetpu: bool = False,
        keep_all: bool = False,
    ) -> None:
        runtime = load_runtime()
        options: dict[str, Any] = {}
        if kernels in _RESOLVERS:
            options["experimental_op_resolver_type"] = runtime.OpResolverType[_RESOLVERS[kernels]]
        if edgetpu:
            options["experimental_delegates"] = [load_delegate(runtime)]
        if keep_all:
            options["experimental_preserve_all_tensors"] = True
        try:
            with quiet():
                self._interpreter = runtime.Interpreter(model_content=model, num_threads=threads, **options)
                # The runtime does not look: it would read whatever lies before the first tensor.
                if incomplete := next(filter(_lacks_a_tensor, self.operators()), None):
                    raise BundleError(
                        f"The runtime cannot run the model: a tensor of its {incomplete['op_name']} is missing."
                    )
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise BundleError(f"The runtime cannot load the model: {_first_line(error)}.") from None
        self.inputs = [_tensor(one) for one in self._interpreter.get_input_details()]
        self.outputs = [_tensor(one) for one in self._interpreter.get_output_details()]

    def run(self, *values: NDArray[Any]) -> list[NDArray[Any]]:
        """The raw outputs for raw inputs, in the graph's own dtypes and shapes.

        Raises:
            BundleError: the runtime cannot run the graph.
        """
        for tensor, value in zip(self.inputs, values, strict=True):
            self._interpreter.set_tensor(tensor.index, value)
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            raise BundleError(f"The runtime cannot run the model: {_first_line(error)}.") from None
        return [self._interpreter.get_tensor(tensor.index) for tensor in self.outputs]

    def run_each(self, values: Sequence[NDArray[Any]] | NDArray[Any]) -> NDArray[Any]:
        """All outputs of n inputs without a batch axis, one after another: (n, values), output by output."""
        return np.stack([np.concatenate([one.ravel() for one in self.run(value[np.newaxis])]) for value in values])

    def value(self, index: int) -> NDArray[Any]:
        """What a tensor holds after ``run``; needs ``keep_all`` where it is not an output."""
        content: NDArray[Any] = self._interpreter.get_tensor(index)
        return content

    def tensors(self) -> list[Tensor]:
        """All tensors of the graph."""
        return [_tensor(one) for one in self._interpreter.get_tensor_details()]

    def operators(self) -> list[dict[str, Any]]:
        """Operators in the order in which they run: ``op_name``, and ``inputs`` and ``outputs`` by index."""
        # Private, but the same in all three runtimes; the public interface does not tell the operators.
        operators: list[dict[str, Any]] = self._interpreter._get_ops_details()
        return operators


def _lacks_a_tensor(operator: Mapping[str, Any]) -> bool:
    """Whether an operator of ``Network.operators`` has no tensor where it needs one."""
    name = operator["op_name"]
    missing = [place for place, index in enumerate(operator["inputs"]) if index < 0]
    optional = missing if name.endswith(_RECURRENT) else _OPTIONAL.get(name, ())
    return any(place not in optional for place in missing) or any(index < 0 for index in operator["outputs"])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["it gives no reason"])[0].rstrip(".")


def _tensor(details: dict[str, Any]) -> Tensor:
    scale, zero_point = details["quantization"]
    return Tensor(
        name=details["name"],
        index=int(details["index"]),
        shape=tuple(int(side) for side in details["shape"]),
        dtype=details["dtype"],
        scale=float(scale),
        zero_point=int(zero_point),
        details=details,
    )


def load_runtime() -> ModuleType:
    """The first TensorFlow Lite runtime that is installed: ai-edge-litert, tflite-runtime, TensorFlow.

    Raises:
        UnavailableError: none is, or none of those that are can be loaded.
    """
    broken: ImportError | None = None
    for name in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite"):
        if broken is not None and name.startswith("tensorflow"):
            break  # who has a runtime that does not load wants to know why, not a thousand megabytes in its place
        try:
            runtime = importlib.import_module(name)
            if name != "tensorflow.lite" or hasattr(runtime, "Interpreter"):  # the latest has none
                return runtime
        except ImportError as error:
            missing = isinstance(error, ModuleNotFoundError) and name.startswith(error.name or "-")
            broken = broken or (None if missing else error)
    if broken is not None:  # it is there: its reason, not the advice to install it
        raise about_import(broken)
    raise UnavailableError("No TensorFlow Lite runtime: run `pip install ai-edge-litert`.")


def runtime_name() -> str:
    """The runtime with its version: "ai-edge-litert 2.3.0"."""
    from importlib import metadata  # loads the e-mail package: 2 MB and 20 ms that no run needs

    name = load_runtime().__name__.partition(".")[0].replace("_", "-")
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:  # tensorflow-cpu and the like
        return f"{name} of unknown version"


def why_it_kills(
    model: bytes, inputs: NDArray[Any] | None = None, kernels: Kernels = "optimized", *, edgetpu: bool = False
) -> str | None:
    """What a graph does to the runtime in a child process, as in "IT crashes (SIGSEGV)"; None where nothing.

    Args:
        model: the FlatBuffer, from whomever.
        inputs: (n, ...) to run it on, where they fit; it is always run on zeros.
        kernels: see ``Network``.
        edgetpu: likewise.
    """
    content = io.BytesIO()
    np.save(content, np.zeros(0) if inputs is None else inputs)
    content.write(model)
    return why_it_dies(
        f"from edge_fer.model import litert; litert.run_trial({kernels!r}, {edgetpu})", content.getvalue()
    )


def run_trial(kernels: Kernels, edgetpu: bool) -> None:
    """In the child process of ``why_it_kills``: run what stands on stdin."""
    content = io.BytesIO(sys.stdin.buffer.read())
    inputs = np.load(content)
    load_runtime()
    limit_memory()
    network = Network(content.read(), kernels=kernels, edgetpu=edgetpu)
    network.run(*(np.zeros(one.shape, one.dtype) for one in network.inputs))
    for tensor in inputs:
        network.run(tensor[np.newaxis])


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


def probe_edgetpu() -> str | None:
    """Why the Edge TPU cannot be used, or None if it can.

    The delegate is loaded in a child process: with a wrong version of the library it does not fail, it crashes.
    """
    script = (
        "import sys; from edge_fer.model import litert\n"
        "try: litert.load_delegate(litert.load_runtime())\n"
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


def load_delegate(runtime: ModuleType) -> Any:
    """The Edge TPU's delegate. A wrong version of its library crashes the process: ``probe_edgetpu`` comes first."""
    # tensorflow.lite keeps the function one level deeper than the two runtimes.
    load = getattr(runtime, "load_delegate", None) or runtime.experimental.load_delegate
    return load(EDGETPU_LIBRARY)
