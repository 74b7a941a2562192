"""Mutation testing: change the code in one place after another, and see whether a test fails.

    python tests/mutation.py                                            # all modules, 100 changes of each
    python tests/mutation.py edge_fer/detection/schedule.py --most 0    # one of them, every change

mutmut leaves constants outside functions alone, where this project's thresholds stand; cosmic-ray changes numbers by 1
and starts Python for every change, which is dear with TensorFlow. This imports the libraries once and forks.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import os
import random
import resource
import sys
import tempfile
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import hypothesis
import pytest

TARGETS = {
    "edge_fer/recognizer.py": "runtime/test_recognizer runtime/test_alignment runtime/test_events",
    "edge_fer/archive/folder.py": "runtime/test_archive",
    "edge_fer/archive/inputs.py": "runtime/test_archive",
    "edge_fer/archive/task.py": "runtime/test_archive",
    "edge_fer/cameras.py": "runtime/test_cameras",
    "edge_fer/config_file.py": "runtime/test_config_file runtime/test_config",
    "edge_fer/doctor/board.py": "runtime/test_doctor_faults",
    "edge_fer/doctor/devices.py": "runtime/test_doctor_faults runtime/test_doctor",
    "edge_fer/doctor/packages.py": "runtime/test_doctor_faults",
    "edge_fer/doctor/system.py": "runtime/test_doctor_faults runtime/test_doctor",
    "edge_fer/detection/schedule.py": "runtime/test_schedule runtime/test_recognizer",
    "edge_fer/detection/tiles.py": "runtime/test_schedule",
    "edge_fer/detection/motion.py": "runtime/test_schedule",
    "edge_fer/detection/template.py": "runtime/test_template runtime/test_schedule",
    "edge_fer/detection/cascade.py": "runtime/test_detectors",
    "edge_fer/sources/live.py": "runtime/test_sources_live",
    "edge_fer/sources/v4l2.py": "runtime/test_sources_camera",
    "edge_fer/threads.py": "runtime/test_threads runtime/test_sources_live",
    "edge_fer/tracking.py": "runtime/test_tracking runtime/test_recognizer",
    "edge_fer/preprocess/__init__.py": "runtime/test_preprocess runtime/test_alignment datasets/test_fer2013",
    "edge_fer/preprocess/face_tensor.py": "runtime/test_preprocess runtime/test_alignment",
    "edge_fer/preprocess/alignment.py": "runtime/test_alignment",
    "edge_fer/preprocess/quality.py": "runtime/test_doubt runtime/test_preprocess runtime/test_recognizer",
    "edge_fer/model/bundle.py": "runtime/test_bundle",
    "edge_fer/model/spec.py": "runtime/test_bundle runtime/test_decision",
    "edge_fer/model/decision.py": "runtime/test_decision",
    "edge_fer/model/heads.py": "runtime/test_heads",
    "edge_fer/model/selftest.py": "runtime/test_classifier runtime/test_bundle",
    "edge_fer/model/litert.py": "runtime/test_classifier runtime/test_bundle",
    "edge_fer/model/classifier.py": "runtime/test_classifier",
    "edge_fer/temporal/aggregation.py": "runtime/test_aggregation",
    "edge_fer/temporal/smoothing.py": "runtime/test_smoothing runtime/test_events",
    "edge_fer/temporal/doubt.py": "runtime/test_doubt runtime/test_decision",
    "edge_fer/temporal/affect.py": "runtime/test_smoothing",
    "edge_fer/events.py": "runtime/test_events",
    "datasets/core.py": "datasets/test_labels datasets/test_fer2013",
    "datasets/fer2013.py": "datasets/test_fer2013",
    "datasets/cache.py": "datasets/test_cache",
    "datasets/leaks.py": "datasets/test_leaks evaluation/test_folds",
    "evaluation/metrics.py": "evaluation/test_metrics evaluation/test_metrics_arithmetic",
    "evaluation/calibration.py": "evaluation/test_calibration",
    "evaluation/intervals.py": "evaluation/test_intervals",
    "evaluation/ceiling.py": "evaluation/test_ceiling",
    "evaluation/device.py": "evaluation/test_protocols",
    "evaluation/protocols.py": "evaluation/test_protocols",
    "evaluation/folds.py": "evaluation/test_folds",
    "evaluation/decision.py": "evaluation/test_fit_decision",
    "evaluation/doubt.py": "evaluation/test_fit_doubt",
    "export/load.py": "export/test_arithmetic export/test_foreign_models export/test_export",
    "export/fold.py": "export/test_arithmetic export/test_equalize",
    "export/equalize.py": "export/test_arithmetic export/test_equalize",
    "export/convert.py": "export/test_arithmetic export/test_verify export/test_export",
    "export/verify.py": "export/test_arithmetic export/test_verify export/test_export",
}
LIBRARIES = {
    "edge_fer": ("cv2",),
    "datasets": ("cv2",),
    "evaluation": ("sklearn.calibration",),
    "export": ("keras", "sklearn.calibration"),
}
"""What takes long to import, by the first folder of a module: imported once, before the forks."""
OPERATORS: dict[type[ast.AST], type[Any]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{ast.Pow: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor"}


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """What could stand in the place of a node."""
    fields: list[dict[str, Any]] = []
    match node:
        case ast.Constant(value=bool(value)):
            fields = [{"value": not value}]
        case ast.Constant(value=int(value)) if value < 5:
            fields = [{"value": value + 1}]
        case ast.Constant(value=int(value) | float(value)):
            fields = [{"value": value * 2 or 1.0}, {"value": type(value)(value / 2)}][: 2 if value else 1]
        case ast.Compare(ops=ops):
            fields = [{"ops": [*ops[:i], OPERATORS[type(op)](), *ops[i + 1 :]]} for i, op in enumerate(ops)]
        case ast.BoolOp(op=op) | ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in OPERATORS:
            fields = [{"op": OPERATORS[type(op)]()}]
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in NAMES:
            fields = [{"id" if isinstance(node, ast.Name) else "attr": NAMES[name]}]
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            fields = [{"value": ast.Constant(None)}]
        case ast.If(test=ast.Name() | ast.Call() | ast.Attribute() as test):
            fields = [{"test": ast.UnaryOp(ast.Not(), test)}]
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            yield operand
    for values in fields:
        new = copy.copy(node)
        vars(new).update(values)
        yield new
    match node:
        case ast.Expr(ast.Call()) | ast.Assign([ast.Attribute() | ast.Subscript()]) | ast.AugAssign() | ast.Delete():
            yield ast.Pass()
        case ast.Break() | ast.Continue():
            yield ast.Pass()


def places(parent: ast.AST) -> Iterator[tuple[Any, Any, ast.AST]]:
    """Every node below another, and where it hangs. Messages are left out: no test should hang on their words."""
    for name, value in ast.iter_fields(parent):
        for key, child in enumerate(value) if isinstance(value, list) else [(name, value)]:
            wanted = isinstance(child, ast.AST) and not isinstance(child, ast.Raise | ast.JoinedStr)
            if wanted and name not in ("annotation", "returns", "decorator_list"):
                yield value if isinstance(value, list) else vars(parent), key, child
                yield from places(child)


def changes(path: Path) -> Iterator[tuple[int, str, Any]]:
    """Every change of a module: its line, what it is, and the code of the whole."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for holder, key, node in list(places(tree)):
        for new in changed(node):
            holder[key] = new
            code = compile(ast.fix_missing_locations(tree), str(path), "exec", dont_inherit=True)
            was, now = (" ".join(ast.unparse(one).split())[:90] for one in (node, new))
            yield getattr(node, "lineno", 0), f"{was}  ->  {now}", code
            holder[key] = node


def run(path: Path, code: Any, tests: list[str], limit_s: int) -> tuple[bool, float]:
    """Whether the tests pass, in a child process, when a module has this code; and the processor time they took."""
    if child := os.fork():
        _, status, used = os.wait4(child, 0)
        return status == 0, used.ru_utime + used.ru_stime
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))  # the change may have made a loop endless
    resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    get_code = SourceFileLoader.get_code
    SourceFileLoader.get_code = lambda self, name: (  # type: ignore[method-assign]
        code if self.get_filename(name) == str(path) else get_code(self, name)
    )
    hypothesis.settings.register_profile("first", database=None, phases=[hypothesis.Phase.generate])
    hypothesis.settings.load_profile("first")
    options = ["-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    options += ["-W", "ignore:Module already imported"]  # hypothesis, above
    with tempfile.TemporaryDirectory() as folder:
        result = pytest.main([*options, f"--basetemp={folder}/t", *tests])
    os._exit(int(result))


def main() -> None:
    """Print the changes that no test notices, and a row of a table for each module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", nargs="*", default=list(TARGETS), help="files to change; default: all of the table")
    parser.add_argument("--most", type=int, default=100, help="changes of a file, drawn by chance; 0 for all")
    args = parser.parse_args()
    sys.path.insert(0, str(Path.cwd()))
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # as tests/conftest.py, which is too late once Keras is there
    for folder in dict.fromkeys(Path(module).parts[0] for module in args.module):
        for library in LIBRARIES[folder]:
            importlib.import_module(library)
    for module in args.module:
        path, tests = Path(module).resolve(), [f"tests/{name}.py" for name in TARGETS[module].split()]
        passed, used_s = run(path, compile(path.read_bytes(), str(path), "exec"), tests, 600)
        if not passed:
            sys.exit(f"{module}: its tests fail as it stands.")
        found, limit_s = list(changes(path)), 5 + round(2 * used_s)
        tried = sorted(random.Random(0).sample(found, min(args.most or len(found), len(found))), key=lambda one: one[0])
        missed = [f"{module}:{line}: {what}" for line, what, code in tried if run(path, code, tests, limit_s)[0]]
        hits = len(tried) - len(missed)
        row = f"| `{module}` | {len(found)} | {len(tried)} | {hits} | {hits / len(tried):.0%} |"
        print(*missed, row, sep="\n", flush=True)


if __name__ == "__main__":
    main()
