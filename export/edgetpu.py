"""Check a bundle for the Coral Edge TPU, and compile it where the compiler is installed.

    python -m export.edgetpu accurate.tflite                             check only
    python -m export.edgetpu accurate.tflite -o accurate_edgetpu.tflite   check and compile

What can be checked without the compiler is necessary, not sufficient: the compiler is closed, and leaves operators on
the CPU for reasons that nobody has written down. The rules are those of "TensorFlow models on the Edge TPU"
(coral.ai/docs/edgetpu/models-intro). Exit codes: 0 checked or compiled, 65 the compiler refuses the model, 66 no such
file, 69 no compiler, 73 cannot write.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_fer.errors import DataError, EdgeFerError, OutputError, UnavailableError
from edge_fer.model.bundle import Bundle, bundle_bytes, load_bundle, write_whole
from export.flatbuffer import Operator, Tensor, read_operators

COMPILER = "edgetpu_compiler"
COMPILER_TIMEOUT_S = 600.0
"""Its own limit is 180 s for a compilation."""
MAPPED = "Mapped to Edge TPU"
"""What the compiler's log says of operators that the Edge TPU runs."""

# The last compiler (16.0) is built on TensorFlow 2.5 and refuses a whole file for one operator of a later version:
# CONV_2D 6, QUANTIZE 3, TRANSPOSE_CONV 4 (google-coral/edgetpu issues 631, 879, 845). These are known to be older:
# the highest that lite/kernels/register.cc had in mid-2020.
_KNOWN_VERSIONS = {
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 6,
    "L2_NORMALIZATION": 2,
    "LOGISTIC": 2,
    "MAXIMUM": 4,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "MINIMUM": 4,
    "MUL": 3,
    "PACK": 3,
    "PAD": 2,
    "QUANTIZE": 2,
    "REDUCE_MAX": 2,
    "REDUCE_MIN": 2,
    "RELU": 2,
    "RELU6": 2,
    "RESIZE_BILINEAR": 3,
    "RESIZE_NEAREST_NEIGHBOR": 2,
    "SLICE": 3,
    "SOFTMAX": 2,
    "SPACE_TO_DEPTH": 2,
    "SPLIT": 3,
    "STRIDED_SLICE": 4,
    "SUB": 3,
    "SUM": 2,
    "TANH": 2,
    "TRANSPOSE_CONV": 2,
}


@dataclass(frozen=True)
class Verdict:
    """What can be said of one operator without the compiler.

    Attributes:
        operator: name in the schema.
        obstacle: why it will stay on the CPU; empty when nothing is known against it.
        doubt: what may go wrong though the rules allow it; empty when nothing is known.
    """

    operator: str
    obstacle: str
    doubt: str


@dataclass(frozen=True)
class CompilerLog:
    """What ``edgetpu_compiler -s`` printed.

    Attributes:
        version: of the compiler; empty when it did not get so far.
        succeeded: it wrote a model.
        subgraphs: how many parts of the graph run on the Edge TPU.
        operators: (name, count, status) by kind of operator; status is ``MAPPED`` or why not.
        mapped: operators that the Edge TPU runs.
        on_cpu: operators that the CPU runs.
        streamed: size of the parameters that do not fit into the Edge TPU's memory: "0.00B" when all do.
        errors: what it complained about, a line each.
    """

    version: str
    succeeded: bool
    subgraphs: int
    operators: tuple[tuple[str, int, str], ...]
    mapped: int
    on_cpu: int
    streamed: str
    errors: tuple[str, ...]


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m export.edgetpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="a bundle made by export/quantize.py, not yet compiled")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.tflite", help="compile it, and write the bundle here")
    parser.add_argument("--force", action="store_true", help="overwrite files")
    args = parser.parse_args(arguments)
    try:
        bundle = load_bundle(args.bundle)
        print(report(check(read_operators(bundle.model))), flush=True)
        if args.output:
            print(summary(compile_bundle(bundle, args.output, args.force)))
            print(f"Wrote {args.output}; {args.bundle.name} beside it is the file for the CPU.")
    except EdgeFerError as error:
        print(f"edgetpu: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def check(operators: Sequence[Operator]) -> list[Verdict]:
    """What speaks against running each operator on the Edge TPU.

    Raises:
        DataError: the model is compiled already.
    """
    if any(operator.name == "CUSTOM" for operator in operators):
        raise DataError("The model has custom operators; check and compile the file for the CPU.")
    verdicts = [Verdict(operator.name, _obstacle(operator), _doubt(operator)) for operator in operators]
    if verdicts and not verdicts[0].doubt and not all(tensor.fixed for tensor in operators[0].inputs):
        verdicts[0] = replace(
            verdicts[0], doubt="the batch is not fixed: Coral's examples fix it to 1 before they convert"
        )
    return verdicts


def _obstacle(operator: Operator) -> str:
    if operator.name not in _RULES:
        return "not in the list of supported operators"
    for tensor in (*operator.inputs, *operator.outputs):
        # Biases, axes and paddings are int32 constants.
        allowed = ("INT8", "UINT8") if tensor.constant is None else ("INT8", "UINT8", "INT32")
        if tensor.dtype not in allowed:
            return f"works on {tensor.dtype}, not on 8 bits"
        if any(side < 1 for side in tensor.shape):
            return f"has a shape that is known only when it runs, {tensor.shape}"
        if any(side > 1 for side in tensor.shape[:-3]) and tensor.constant is None:
            return f"has more than three dimensions, {tensor.shape}"
    return next((text for rule in _RULES[operator.name] if (text := rule(operator))), "")


def _constant_weights(operator: Operator) -> str:
    constant = all(tensor.constant is not None for tensor in operator.inputs[1:])
    return "" if constant else "has weights that are computed"


def _one_dilation(operator: Operator) -> str:
    x, y = operator.options["dilationWFactor"], operator.options["dilationHFactor"]
    return "" if x == y else f"has different dilations in x and y, {x} and {y}"


def _default_weights(operator: Operator) -> str:
    return "" if operator.options["weightsFormat"] == 0 else "has shuffled weights"


def _flat_output(operator: Operator) -> str:
    shape = operator.outputs[0].shape
    return "" if all(side == 1 for side in shape[:-1]) else f"has an output of more than one dimension, {shape}"


def _no_activation(operator: Operator) -> str:
    return "has a fused activation" if operator.options["fusedActivationFunction"] else ""


def _zero_padding_only(operator: Operator) -> str:
    constants = [tensor for tensor in operator.inputs if tensor.constant is not None]
    if not constants or (len(operator.inputs) == 2 and all(_is_zero(tensor) for tensor in constants)):
        return ""
    return "joins constants that are not zero, or more than one tensor with a constant"


def _is_zero(tensor: Tensor) -> bool:
    return tensor.constant is not None and not tensor.constant.any()


def _numbers(tensor: Tensor) -> list[int]:
    """The values of an int32 constant; none of a computed tensor."""
    return [] if tensor.constant is None else np.frombuffer(tensor.constant.tobytes(), np.int32).tolist()


def _no_batch_axis(operator: Operator) -> str:
    rank = len(operator.inputs[0].shape)
    axes = {axis % rank for axis in _numbers(operator.inputs[1])}
    if not axes:
        return "reduces over axes that are computed"
    # "Batch" is the first of four dimensions.
    return "reduces over the batch" if rank == 4 and 0 in axes else ""


def _depth_of_four(operator: Operator) -> str:
    shape = operator.inputs[0].shape
    over_depth = len(shape) - 1 in {axis % len(shape) for axis in _numbers(operator.inputs[1])}
    return f"reduces over {shape[-1]} channels, not a multiple of 4" if over_depth and shape[-1] % 4 else ""


def _no_batch_padding(operator: Operator) -> str:
    return "pads the batch" if any(_numbers(operator.inputs[1])[:2]) else ""


def _short_vector(operator: Operator) -> str:
    shape = operator.inputs[0].shape
    return "" if np.prod(shape) == shape[-1] <= 16_000 else f"is not of one vector of at most 16,000, {shape}"


Rule = Callable[[Operator], str]
_CONVOLUTION: tuple[Rule, ...] = (_constant_weights, _one_dilation)
# Operators with an empty tuple have no condition, or one that image classifiers do not touch.
_RULES: dict[str, tuple[Rule, ...]] = {
    "ADD": (),
    "AVERAGE_POOL_2D": (_no_activation,),
    "CONCATENATION": (_no_activation, _zero_padding_only),
    "CONV_2D": _CONVOLUTION,
    "DEPTHWISE_CONV_2D": _CONVOLUTION,
    "EXPAND_DIMS": (),
    "FULLY_CONNECTED": (_constant_weights, _default_weights, _flat_output),
    "L2_NORMALIZATION": (),
    "LOGISTIC": (),
    "MAXIMUM": (),
    "MAX_POOL_2D": (_no_activation,),
    "MEAN": (_no_batch_axis, _depth_of_four),
    "MINIMUM": (),
    "MUL": (),
    "PACK": (),
    "PAD": (_no_batch_padding,),
    "PRELU": (),
    "QUANTIZE": (),
    "REDUCE_MAX": (_no_batch_axis,),
    "REDUCE_MIN": (_no_batch_axis,),
    "RELU": (),
    "RELU6": (),
    "RELU_N1_TO_1": (),
    "RESHAPE": (),
    "RESIZE_BILINEAR": (),
    "RESIZE_NEAREST_NEIGHBOR": (),
    "RSQRT": (),
    "SLICE": (),
    "SOFTMAX": (_short_vector,),
    "SPACE_TO_DEPTH": (),
    "SPLIT": (),
    "SQUARED_DIFFERENCE": (),
    "SQUEEZE": (),
    "STRIDED_SLICE": (),
    "SUB": (),
    "SUM": (_no_batch_axis,),
    "TANH": (),
    "TRANSPOSE_CONV": (),
}


def _doubt(operator: Operator) -> str:
    if operator.version > _KNOWN_VERSIONS.get(operator.name, 1):
        return f"version {operator.version} may be newer than the compiler, which then refuses the file"
    if operator.name == "FULLY_CONNECTED" and len(operator.inputs[1].scales) > 1:
        # The converter writes them since 2024. Kernels not made for it read one scale (tflite-micro pull request 2602).
        return "one scale for each output, newer than the compiler: export with --per-tensor to be sure"
    return ""


def report(verdicts: Sequence[Verdict]) -> str:
    """The verdicts in words: a line for each operator, then where the graph is cut, then how far to trust it."""
    lines = [
        f"{number:4}  {verdict.operator:24}{verdict.obstacle or 'nothing against it'}"
        + (f"; but {verdict.doubt}" if verdict.doubt else "")
        for number, verdict in enumerate(verdicts)
    ]
    cut = next((number for number, verdict in enumerate(verdicts) if verdict.obstacle), None)
    if cut is None:
        lines.append(f"Nothing speaks against mapping all {len(verdicts)} operators.")
    else:
        lines.append(
            f"The graph is cut at operator {cut}: of {len(verdicts)}, {cut} may run on the Edge TPU, "
            f"{len(verdicts) - cut} stay on the CPU, those after the cut as well."
        )
    lines.append(f"This is necessary, not sufficient: only {COMPILER} knows what it maps.")
    return "\n".join(lines)


def parse_log(text: str) -> CompilerLog:
    """Read what ``edgetpu_compiler -s`` (2.0 to 16.0) printed."""
    operators = tuple(
        (match[1], int(match[2]), match[3].strip())
        for match in re.finditer(r"^([A-Z][A-Z0-9_]*)[ \t]+(\d+)[ \t]+(\S.*)$", text, re.MULTILINE)
    )
    errors = re.findall(
        r"^((?:ERROR: |Invalid model: |Compilation failed: |Internal compiler error).*|Model could not be parsed.*)$",
        text,
        re.MULTILINE,
    )
    total = _figure(r"Total number of operations: (\d+)", text)
    # The two counts are printed only when some operators stay on the CPU.
    partly = re.search(r"Number of operations that will run on Edge TPU: (\d+)", text)
    mapped = int(partly[1]) if partly else total
    return CompilerLog(
        version=_figure_text(r"Edge TPU Compiler version (\S+)", text),
        succeeded="Model compiled successfully" in text,
        subgraphs=_figure(r"Number of Edge TPU subgraphs: (\d+)", text),
        operators=operators,
        mapped=mapped,
        on_cpu=total - mapped,
        streamed=_figure_text(r"streaming uncached model parameters: (\S+)", text),
        # This one only announces the reason, which follows.
        errors=tuple(error.strip() for error in errors if "Restored original execution plan" not in error),
    )


def _figure_text(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""


def _figure(pattern: str, text: str) -> int:
    return int(_figure_text(pattern, text) or 0)


def summary(log: CompilerLog) -> str:
    """The compiler's log in a few lines."""
    lines = [
        f"Compiler {log.version} mapped {log.mapped} of {log.mapped + log.on_cpu} operators to the Edge TPU in "
        f"{log.subgraphs} part(s); parameters streamed for each frame: {log.streamed}."
    ]
    lines += [f"On the CPU: {count} {name}: {status}." for name, count, status in log.operators if status != MAPPED]
    return "\n".join(lines)


def compile_bundle(bundle: Bundle, output: Path, force: bool = False) -> CompilerLog:
    """Compile a bundle's model, attach its card again, and put the bundle for the CPU beside it.

    The self-test keeps the outputs of the plain CPU kernels: it is what the Edge TPU must come close to.

    Args:
        bundle: not yet compiled.
        output: the file to write.
        force: overwrite ``output``, and a file of the bundle's name beside it.

    Raises:
        UnavailableError: the compiler is not installed.
        DataError: the compiler refuses the model, or maps nothing.
        OutputError: a file is there already, or cannot be written.
    """
    beside = output.parent / bundle.path.name
    copied = not (beside.exists() and beside.samefile(bundle.path))
    if output.exists() and output.samefile(bundle.path):
        raise OutputError(f"{output} is the file for the CPU, which is still needed: choose another name.")
    for path in (output, beside) if copied else (output,):
        if path.exists() and not force:
            raise OutputError(f"{path} exists; --force overwrites it.")
    compiled, log = _compiled(bundle.model)
    card = bundle.card
    facts = {"compiler": log.version, "operators_mapped": log.mapped, "operators_on_cpu": log.on_cpu}
    content = bundle_bytes(
        compiled,
        card.name,
        card.heads,
        card.margin,
        card.smoothing,
        {**card.facts, "edgetpu": facts},
        bundle.selftest_inputs,
        bundle.selftest_outputs,
        bundle.selftest_tolerance,
        card.align,
    )
    if copied:
        write_whole(beside, bundle.path.read_bytes())
    write_whole(output, content)
    return log


def _compiled(model: bytes) -> tuple[bytes, CompilerLog]:
    command = shutil.which(COMPILER)
    if command is None:
        raise UnavailableError(
            f"{COMPILER} is not on the PATH, so nothing is compiled. It runs on x86-64 Debian and Ubuntu: see "
            "coral.ai/docs/edgetpu/compiler, and copy the result to the board."
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(model)
        try:
            done = subprocess.run(
                [command, "-s", "-o", name, str(folder / "model.tflite")],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=COMPILER_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(f"{COMPILER} does not run: {error}.") from None
        log = parse_log(done.stdout)
        written = folder / "model_edgetpu.tflite"
        if done.returncode != 0 or not log.succeeded or not written.is_file():
            reason = log.errors[0] if log.errors else f"exit code {done.returncode}, without a reason"
            raise DataError(f"{COMPILER} refuses the model: {reason.rstrip('. ')}.")
        if log.subgraphs == 0 or log.mapped == 0:
            raise DataError(f"{COMPILER} maps no operator of the model to the Edge TPU; use the file for the CPU.")
        return written.read_bytes(), log


if __name__ == "__main__":
    sys.exit(main())
