"""Recipes of several stages: walked, cut off and gone on with, refused where something has changed; the lineage."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faces_csv import write_csvs

from edge_fer.errors import ConfigError, EdgeFerError, InputMissingError
from edge_fer.model.bundle import load_bundle
from training import loop, models, pipeline, plan
from training.__main__ import main
from training.callbacks.chance import Batches
from training.callbacks.epoch_log import Place, in_words
from training.runs import sha256_of
from training.stages import RECIPES, collect, find, load_stages

SHARED = """
epochs = 2
batch_size = 35
mixup = 0.2
center = 0.01
island = 1.0
[model]
stages = [[8, 2], [16, 2], [16, 2]]
dropout = 0.2
[augment]
noise = 6
[optimizer]
learning_rate = 0.01
warmup_epochs = 1
ema = 0.9
"""
EVERY_KIND = """
name = "every"
BASE
[[stage]]
name = "faces"
kind = "pretrain"
pretrain.epochs = 2
[[stage]]
name = "a"
init_from = "faces"
[[stage]]
name = "b"
seed = 7
model.squeeze_excitation = 4
[[stage]]
name = "logits"
kind = "cache-logits"
teachers = ["a", "b"]
views = 1
[[stage]]
name = "folded"
kind = "fold"
of = "b"
[[stage]]
name = "c"
init_from = "folded"
teacher_logits = "logits"
distill.weight = 0.5
[[stage]]
name = "online"
init_from = "c"
teachers = ["a"]
distill.weight = 0.5
[[stage]]
name = "between"
kind = "interpolate"
between = ["c", "online"]
alpha = 0.25
[[stage]]
name = "tuned"
kind = "qat"
of = "between"
optimizer.learning_rate = 2e-4
[[stage]]
name = "int8"
kind = "quantize"
of = "tuned"
flags = ["--max-drop", "100", "--min-agreement", "0", "--calibration", "20"]
"""
STAGES = ["faces", "a", "b", "logits", "folded", "c", "online", "between", "tuned", "int8"]
TWO = """
name = "two"
BASE
[[stage]]
name = "one"
[[stage]]
name = "other"
init_from = "one"
mixup = 0.0
"""

Call = Callable[..., Any]


def written(folder: Path, text: str, name: str = "recipe.toml") -> Path:
    path = folder / name
    (folder / "shared.toml").write_text(SHARED)
    path.write_text(text.replace("BASE", 'base = "shared.toml"'))
    return path


def walk(call: Call, recipe: Path, data: Path, runs: Path, *more: object) -> Any:
    return call(main, "run", recipe, "--data", data, "--runs", runs, *more)


def weights(path: Path) -> list[np.ndarray]:
    return [np.asarray(one) for one in models.load(path).get_weights()]


def same(one: Path, other: Path) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


@pytest.fixture(scope="module")
def every(call: Call, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe with every kind of stage, and its runs. Read them, do not change them."""
    folder = tmp_path_factory.mktemp("every")
    recipe = written(folder, EVERY_KIND)
    done = walk(call, recipe, data, folder / "runs")
    assert done.code == 0, done.err
    assert "stage 7 of 10, every/online" in done.err
    return recipe, folder / "runs"


@pytest.fixture
def copied(every: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The same to change."""
    shutil.copytree(every[0].parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / every[0].name, tmp_path / "runs"


# Walked


def test_every_kind_of_stage_leaves_its_lineage(every: tuple[Path, Path], data: Path) -> None:
    folder = every[1] / "every"
    lineage = load_bundle(folder / "int8" / "every.tflite").metadata.facts["training"]["lineage"]
    assert list(lineage) == [f"every/{name}" for name in STAGES[:-1]]
    assert lineage == json.loads((folder / "tuned" / "run.json").read_text())["lineage"]
    assert lineage["every/between"]["alpha"] == 0.25
    assert lineage["every/b"]["seed"] == 7
    assert lineage["every/b"]["recipe_sha256"] == sha256_of(folder / "b" / "recipe.toml")
    assert lineage["every/online"]["inputs"] == {
        f"every/{name}": sha256_of(folder / name / "model.keras") for name in ("c", "a")
    }
    assert lineage["every/logits"]["made_sha256"] == sha256_of(folder / "logits" / "logits.npz")
    assert {"edge_fer", "keras", "backend"} == lineage["every/a"]["versions"].keys()
    assert {"Training", "PublicTest"} == lineage["every/a"]["data_sha256"].keys()


def test_a_stage_names_only_what_led_to_it(every: tuple[Path, Path]) -> None:
    facts = json.loads((every[1] / "every" / "folded" / "run.json").read_text())
    assert list(facts["lineage"]) == ["every/b", "every/folded"]


def test_what_is_done_is_not_done_again(copied: tuple[Path, Path], data: Path, call: Call) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied[1].rglob("*")}
    again = walk(call, *copied[:1], data, copied[1])
    assert again.code == 0
    assert again.err.count("done in") == 10
    assert before == {path: path.stat().st_mtime_ns for path in copied[1].rglob("*")}


def test_from_makes_a_stage_again_and_what_is_built_on_it(copied: tuple[Path, Path], data: Path, call: Call) -> None:
    folder = copied[1] / "every"
    before = {name: (folder / f"{name}.json").stat().st_mtime_ns for name in STAGES}
    old = weights(folder / "online" / "model.keras")
    assert walk(call, copied[0], data, copied[1], "--from", "online").code == 0
    again = [name for name in STAGES if (folder / f"{name}.json").stat().st_mtime_ns != before[name]]
    assert again == ["online", "between", "tuned", "int8"]
    assert all(np.array_equal(a, b) for a, b in zip(old, weights(folder / "online" / "model.keras"), strict=True))
    assert not list(folder.glob("*.replaced"))


def test_a_dry_run_shows_the_plan_and_leaves_nothing(tmp_path: Path, call: Call) -> None:
    shown = call(main, "run", "nano", "--data", tmp_path / "none", "--runs", tmp_path / "runs", "--dry-run")
    assert shown.code == 0
    assert "teachers/t4" in shown.err
    assert "about 2 h 10 min" in shown.err
    assert not (tmp_path / "runs").exists()


def test_a_recipe_without_stages_is_one(tmp_path: Path, data: Path, call: Call) -> None:
    path = written(tmp_path, 'name = "lone"\nBASE\n')
    assert walk(call, path, data, tmp_path / "runs", "--set", "epochs=2", "--set", "optimizer.ema=0").code == 0
    facts = json.loads((tmp_path / "runs" / "lone" / "train" / "run.json").read_text())
    assert list(facts["lineage"]) == ["lone/train"]


def test_stages_of_other_recipes_are_trained_first(tmp_path: Path, data: Path, call: Call) -> None:
    written(tmp_path, 'name = "first"\nBASE\n[[stage]]\nname = "x"\n[[stage]]\nname = "unneeded"\n', "first.toml")
    path = written(tmp_path, 'name = "second"\nBASE\n[[stage]]\nname = "y"\ninit_from = "first/x"\n', "second.toml")
    assert walk(call, path, data, tmp_path / "runs").code == 0
    facts = json.loads((tmp_path / "runs" / "second" / "y" / "run.json").read_text())
    assert list(facts["lineage"]) == ["first/x", "second/y"]
    assert not (tmp_path / "runs" / "first" / "unneeded").exists()
    # What it was made from may go once it is done.
    shutil.rmtree(tmp_path / "runs" / "first")
    assert walk(call, path, data, tmp_path / "runs").code == 0
    assert not (tmp_path / "runs" / "first").exists()


# Cut off

KILLED = """
import os, signal, sys
from pathlib import Path
wanted, when = sys.argv[1:3]
def deadly(name):
    method = getattr(Path, name)
    def act(self, *arguments):
        here = wanted in (str(self), *map(str, arguments[:1]))
        if here and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if here and when == "half":
            method(self, arguments[0][:9])
            os.kill(os.getpid(), signal.SIGKILL)
        done = method(self, *arguments)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    setattr(Path, name, act)
deadly("replace") if when != "half" else deadly("write_bytes")
from training.__main__ import main
sys.exit(main(sys.argv[3:]))
"""
MOMENTS = [
    ("one.json", "after"),  # begun, and nothing else
    ("one/ema.1.keras", "after"),  # the EMA of an epoch whose checkpoint is not there yet
    ("one/checkpoint.keras", "after"),  # the other way round
    ("one/run.json.part", "half"),
    ("one/run.json", "after"),  # without its lineage
    ("other.json", "before"),  # between two stages
    ("other/history.csv", "before"),
]


@pytest.mark.trains
def test_killed_at_any_moment_it_comes_to_the_same_weights(tmp_path: Path, data: Path, call: Call) -> None:
    path = written(tmp_path, TWO)
    assert walk(call, path, data, tmp_path / "whole").code == 0
    command = ["run", path, "--data", data, "--runs", tmp_path / "cut"]

    def child(wanted: Path, when: str) -> int:
        line = [sys.executable, "-c", KILLED, wanted, when, *command]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        return subprocess.run([*map(str, line)], env=environment, capture_output=True).returncode

    for name, when in MOMENTS:
        assert child(tmp_path / "cut" / "two" / name, when) == -9, (name, when)
    assert child(tmp_path / "never", "before") == 0
    for name in ("one", "other"):
        files = (tmp_path / runs / "two" / name / "model.keras" for runs in ("whole", "cut"))
        assert same(*files), name


def test_a_cut_off_stage_is_gone_on_with(
    tmp_path: Path, data: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CutOff(loop.EpochLog):
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            super().on_epoch_end(epoch, logs)
            raise KeyboardInterrupt

    path = written(tmp_path, TWO)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "EpochLog", CutOff)
        stopped = walk(call, path, data, tmp_path / "runs")
    assert stopped.code == 130
    assert "the same command, without --from" in stopped.err
    plan_of = walk(call, path, data, tmp_path / "runs", "--dry-run")
    assert "1 of 2 epochs" in " ".join(plan_of.err.split())
    assert walk(call, path, data, tmp_path / "runs").code == 0
    record = json.loads((tmp_path / "runs" / "two" / "one.json").read_text())
    lines = (tmp_path / "runs" / "two" / "one" / "history.csv").read_text().splitlines()[1:]
    assert record["seconds"] > sum(float(line.split(",")[2]) for line in lines[:1])


# Refused


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "seed=9"], "by another recipe (seed): --from faces"),
        (["--set", "optimizer.ema=0.5"], "by another recipe (optimizer.ema): --from faces"),
        (["--from", "nowhere"], "there is no such stage; there are every/faces"),
        (["--set", "seed"], "write KEY=VALUE"),
    ],
)
def test_another_recipe_is_refused(
    every: tuple[Path, Path], data: Path, call: Call, more: list[str], message: str
) -> None:
    refused = walk(call, every[0], data, every[1], *more)
    assert refused.code == 78
    assert message in refused.err
    assert "Traceback" not in refused.err


def test_a_setting_that_a_later_version_brought_is_at_its_default(
    copied: tuple[Path, Path], data: Path, call: Call
) -> None:
    for record in (copied[1] / "every").glob("*.json"):
        table = json.loads(record.read_text())
        table["recipe"].pop("identity", None)
        table["recipe"].get("optimizer", {}).pop("kind", None)
        record.write_text(json.dumps(table))
    assert walk(call, copied[0], data, copied[1]).code == 0
    refused = walk(call, copied[0], data, copied[1], "--set", "optimizer.kind=muon")
    assert (refused.code, "(optimizer.kind)" in refused.err) == (78, True)


def test_a_stage_that_differs_names_itself(copied: tuple[Path, Path], data: Path, call: Call) -> None:
    copied[0].write_text(copied[0].read_text().replace("alpha = 0.25", "alpha = 0.5"))
    refused = walk(call, copied[0], data, copied[1])
    assert (refused.code, "(alpha): --from between" in refused.err) == (78, True)
    assert walk(call, copied[0], data, copied[1], "--from", "between").code == 0
    assert walk(call, copied[0], data, copied[1]).code == 0


def test_other_data_are_refused(every: tuple[Path, Path], tmp_path: Path, call: Call) -> None:
    write_csvs(tmp_path, training=147)
    refused = walk(call, every[0], tmp_path, every[1])
    assert (refused.code, "with other data: --from faces" in refused.err) == (78, True)


def test_another_version_is_refused(
    every: tuple[Path, Path], data: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "__version__", "99.0")
    refused = walk(call, every[0], data, every[1])
    assert refused.code == 78
    assert ", not 99.0: --from faces" in refused.err


def test_a_model_that_another_took_the_place_of_is_noticed(copied: tuple[Path, Path], data: Path, call: Call) -> None:
    folder = copied[1] / "every"
    shutil.copy(folder / "a" / "model.keras", folder / "c" / "model.keras")
    refused = walk(call, copied[0], data, copied[1])
    assert (refused.code, "from another every/c: --from online" in refused.err) == (78, True)


def test_folders_of_others_are_left_alone(tmp_path: Path, data: Path, call: Call) -> None:
    mine = tmp_path / "runs" / "two" / "one" / "diary.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("dear")
    for more in ([], ["--from", "one"]):
        refused = walk(call, written(tmp_path, TWO), data, tmp_path / "runs", *more)
        assert refused.code == 78
        assert "was not made by `run`" in refused.err
    assert mine.read_text() == "dear"


def test_a_damaged_record_is_refused(copied: tuple[Path, Path], data: Path, call: Call) -> None:
    for text in ("{", "[]", "{}"):
        (copied[1] / "every" / "a.json").write_text(text)
        refused = walk(call, copied[0], data, copied[1])
        assert (refused.code, "not what `run` wrote" in refused.err) == (65, True)


def test_further_faces_that_are_not_there_are_missed_before_anything_is_trained(
    tmp_path: Path, data: Path, call: Call
) -> None:
    path = written(tmp_path, f'{TWO}data.further = "posed"\n')
    refused = walk(call, path, data, tmp_path / "runs")
    assert (refused.code, "two/other wants" in refused.err, "Traceback" in refused.err) == (66, True, False)
    assert not (tmp_path / "runs").exists()
    assert walk(call, path, data, tmp_path / "runs", "--dry-run", "--set", "data.further=").code == 0


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path, data: Path, call: Call) -> None:
    folder = tmp_path / "runs" / "two"
    folder.mkdir(parents=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused = walk(call, written(tmp_path, TWO), data, tmp_path / "runs")
    finally:
        os.close(held)
    assert (refused.code, "Another process is at work" in refused.err) == (1, True)


def test_a_quantization_that_fails_fails_the_run(copied: tuple[Path, Path], data: Path, call: Call) -> None:
    copied[0].write_text(copied[0].read_text().replace('"--max-drop", "100"', '"--io", "float"'))
    failed = walk(call, copied[0], data, copied[1], "--from", "int8")
    assert (failed.code, "every/int8 failed: export/quantize.py says above why" in failed.err) == (2, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"\nstage = 3', "write each stage as"),
        ('name = "x y"\n[[stage]]\nname = "a"', "it names a folder"),
        ('name = "x"\nBASE\n[[stage]]\nkind = "train"', "a name of its own"),
        ('name = "x"\nBASE\n[[stage]]\nname = "a"\n[[stage]]\nname = "a"', "a name of its own"),
        ('name = "x"\nBASE\n[[stage]]\nname = "a"\nteacher = "b"', "Did you mean 'teachers'"),
        ('name = "x"\nBASE\n[[stage]]\nname = "a"\nzzz = 1', "unknown key 'zzz'"),
        ('name = "x"\nBASE\n[[stage]]\nname = "a"\nkind = "trian"', "must be one of train"),
        ('name = "x"\nBASE\n[[stage]]\nname = "a"\nalpha = 0.5', "'alpha' is not for a stage of the kind 'train'"),
        ('name = "x"\nBASE\n[[stage]]\nname = "a"\nkind = "fold"', "wants 'of'"),
        ('name = "x"\nBASE\n[[stage]]\nname = "a"\nkind = "fold"\nof = "b"\nepochs = 3', "unknown key 'epochs'"),
        (
            'name = "x"\nBASE\n[[stage]]\nname = "a"\nkind = "cache-logits"\naugment.scale = 0.1',
            "unknown key 'augment'",
        ),
        ('name = "x"\nBASE\n[[stage]]\nname = "a"\ninit_from = "b"', "no 'b' among the stages before it"),
        ('name = "x"\nBASE\n[[stage]]\nname = "a"\nteacher_logits = "b"', "in training/logits"),
        ('name = "x"\nBASE\n[[stage]]\nname = "a"\nkind = "interpolate"\nbetween = ["a"]', "name two stages"),
        ('name = "x"\nBASE\n[[stage]]\nname = "a"\ninit_from = "accurate/none"', "has only accurate/online"),
        ('name = "x"\nBASE\n[[stage]]\nname = "a"\noptimizer.kind = "sgd"', "stage 'a'"),
        ('name = "x"\nbase = "recipe.toml"', "that has none itself"),
        ('name = "x"\nbase = 3', "that has none itself"),
    ],
)
def test_wrong_stages(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        collect(written(tmp_path, text))


def test_recipes_that_want_each_other_are_refused(tmp_path: Path) -> None:
    for name, other in (("x", "y"), ("y", "x")):
        text = f'name = "{name}"\nBASE\n[[stage]]\nname = "s"\ninit_from = "{other}/s"\n'
        path = written(tmp_path, text, f"{name}.toml")
    with pytest.raises(ConfigError, match="is made from itself"):
        collect(path)


def test_no_recipe_lists_those_there_are() -> None:
    with pytest.raises(InputMissingError, match="one of ablation, ablation-small, accurate, accurate-robust"):
        find("acurate")


# Of the project


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_project_are_read(path: Path) -> None:
    if path.stem == "base":
        with pytest.raises(ConfigError, match="name"):
            load_stages(path)
        return
    stages = load_stages(path)
    assert {stage.pipeline for stage in stages} == {path.stem}
    # The survey's stages are methods side by side.
    assert stages[-1].kind in {"quantize", "cache-logits"} or len(stages) == 1 or path.stem.startswith("survey")


def test_nano_is_made_of_these_stages() -> None:
    stages = collect(find("nano"))
    teachers = [f"teachers/t{number}" for number in (1, 2, 3, 4)]
    own = [f"nano/{name}" for name in ("online", "robust", "between", "int8")]
    assert list(stages) == ["nano/first", "nano/second", *teachers, own[0], "accurate/online", *own[1:]]
    recipes = [stages[f"nano/{name}"].recipe for name in ("first", "second", "online", "robust")]
    assert [(one.epochs, one.batch_size, one.seed) for one in recipes] == [
        *((155, 64, 1), (118, 64, 1), (307, 128, 1), (26, 64, 2)),
    ]
    assert [one.optimizer.learning_rate for one in recipes] == [0.012, 0.01, 0.016, 0.002]
    assert [one.distill.weight for one in recipes] == [0.6, 0.8, 0.9, 0.8]
    assert [one.consistency for one in recipes] == [0, 0, 0, 2]
    assert [stages[f"nano/{name}"].inputs[-1] for name in ("first", "second", "robust")] == [
        *("large-se", "t1-t4", "accurate/online"),
    ]


# Parts


def test_bfloat16_is_for_processors_that_have_it(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    for flags, has in (("avx512_bf16 x", True), ("Features : asimd bf16", True), ("avx512f ebf16", False)):
        cpuinfo.write_text(flags)
        assert pipeline._has_bfloat16(cpuinfo) is has
    assert not pipeline._has_bfloat16(tmp_path / "none")


def test_a_processor_without_bfloat16_trains_in_float32(
    tmp_path: Path, data: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_has_bfloat16", lambda: False)
    path = written(tmp_path, 'name = "x"\nBASE\n')
    done = walk(call, path, data, tmp_path / "runs", "--set", "precision=bfloat16")
    assert done.code == 0
    assert "In float32" in done.err
    facts = json.loads((tmp_path / "runs" / "x" / "train" / "run.json").read_text())
    assert facts["lineage"]["x/train"]["precision"] == "float32"


def test_batches_hold_each_sample_once() -> None:
    images, numbers = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1), np.arange(7)
    batches = Batches(images, {"task": numbers}, 3)
    batches.order = np.random.default_rng(0).permutation(7)
    parts = [batches[at] for at in range(len(batches))]
    assert [len(part[0]) for part in parts] == [3, 3, 1]
    for part in parts:
        assert part[0].ravel().tolist() == part[1]["task"].tolist()
    assert sorted(np.concatenate([part[1]["task"] for part in parts])) == list(range(7))


def test_times_in_words() -> None:
    assert [in_words(seconds) for seconds in (41, 720, 7380)] == ["41 s", "12 min", "2 h 03 min"]
    assert Place("stage 2 of 4, ", 3600).left(1800) == "stage 2 of 4, 1 h 30 min left"


def test_a_line_of_the_history_may_stand_for_several_epochs() -> None:
    lines = [{"epoch": 1.0, "seconds": 10.0}, {"epoch": 4.0, "seconds": 2.0}]
    assert plan.total_seconds(lines) == 16.0


def test_errors_of_the_export_keep_their_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = load_stages(find("quick"))[-1]
    with pytest.raises(EdgeFerError, match="quick/int8 failed") as raised:
        pipeline._export(stage, "quantize.py", "--no-such-flag")
    assert raised.value.exit_code == 2
