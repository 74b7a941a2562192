"""Check a bundle for the Coral Edge TPU, and compile it where the compiler is installed.

    python -m export.edgetpu accurate.tflite                             check only
    python -m export.edgetpu accurate.tflite -o accurate_edgetpu.tflite   check and compile

What can be checked without the compiler is necessary, not sufficient: the compiler is closed, and leaves operators on
the CPU for reasons that nobody has written down. Exit codes: 0 checked or compiled, 65 the compiler refuses the model,
66 no such file, 69 no compiler, 73 cannot write.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_fer.errors import DataError, EdgeFerError, OutputError, UnavailableError
from edge_fer.files import write_atomically
from edge_fer.model.bundle import Bundle, load_bundle
from export.edgetpu_rules import Verdict, check
from export.flatbuffer import read_operators

COMPILER = "edgetpu_compiler"
COMPILER_TIMEOUT_S = 600.0
"""Its own limit is 180 s for a compilation."""
MAPPED = "Mapped to Edge TPU"
"""What the compiler's log says of operators that the Edge TPU runs."""


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
    total = _number(r"Total number of operations: (\d+)", text)
    # The two counts are printed only when some operators stay on the CPU.
    partly = re.search(r"Number of operations that will run on Edge TPU: (\d+)", text)
    mapped = int(partly[1]) if partly else total
    return CompilerLog(
        version=_first(r"Edge TPU Compiler version (\S+)", text),
        succeeded="Model compiled successfully" in text,
        subgraphs=_number(r"Number of Edge TPU subgraphs: (\d+)", text),
        operators=operators,
        mapped=mapped,
        on_cpu=total - mapped,
        streamed=_first(r"streaming uncached model parameters: (\S+)", text),
        # This one only announces the reason, which follows.
        errors=tuple(error.strip() for error in errors if "Restored original execution plan" not in error),
    )


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""


def _number(pattern: str, text: str) -> int:
    return int(_first(pattern, text) or 0)


def summary(log: CompilerLog) -> str:
    """The compiler's log in a few lines."""
    lines = [
        f"Compiler {log.version} mapped {log.mapped} of {log.mapped + log.on_cpu} operators to the Edge TPU in "
        f"{log.subgraphs} part(s); parameters streamed for each frame: {log.streamed}."
    ]
    lines += [f"On the CPU: {count} {name}: {status}." for name, count, status in log.operators if status != MAPPED]
    return "\n".join(lines)


def compile_bundle(bundle: Bundle, output: Path, force: bool = False) -> CompilerLog:
    """Compile a bundle's model, attach its metadata again, and put the bundle for the CPU beside it.

    The self-test keeps the outputs of the reference kernels: it is what the Edge TPU must come close to.

    Args:
        bundle: of a file, not yet compiled.
        output: the file to write.
        force: overwrite ``output``, and a file of the bundle's name beside it.

    Raises:
        UnavailableError: the compiler is not installed.
        DataError: the compiler refuses the model, or maps nothing.
        OutputError: a file is there already, or cannot be written.
    """
    source = bundle.path
    assert source is not None, "a bundle that is in no file yet is no bundle for the CPU to keep"
    beside = output.parent / source.name
    copied = not (beside.exists() and beside.samefile(source))
    if output.exists() and output.samefile(source):
        raise OutputError(f"{output} is the file for the CPU, which is still needed: choose another name.")
    for path in (output, beside) if copied else (output,):
        if path.exists() and not force:
            raise OutputError(f"{path} exists; --force overwrites it.")
    compiled, log = _compiled(bundle.model)
    facts = {"compiler": log.version, "operators_mapped": log.mapped, "operators_on_cpu": log.on_cpu}
    metadata = replace(bundle.metadata, facts={**bundle.metadata.facts, "edgetpu": facts})
    if copied:
        write_atomically(beside, source.read_bytes())
    Bundle.new(compiled, metadata, bundle.selftest, bundle.recurrent, bundle.arrays).write(output)
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
