"""The survey's table: the list is whole, rows are trained, measured and gone on with, the page says what there is."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from faces_csv import pattern

import datasets
from edge_fer.errors import ConfigError, DataError, UnavailableError
from training import models, pipeline, stages
from training.__main__ import main
from training.recipe import ModelRecipe
from training.survey import measure
from training.survey.page import NOT_RUN, page
from training.survey.results import PROJECT, Result, read_results, with_project, write_results
from training.survey.rows import close_rows
from training.survey.systems import BASELINE, Section, System, load_systems, rows_of

pytestmark = pytest.mark.trains

ROOT = Path(__file__).parents[2]
SECTIONS = load_systems()
LISTED = {system.name: system for section in SECTIONS for system in section.system}

# What "Deep Facial Expression Recognition: A Survey" names, in its order.
NAMED = """
ck+ mmi jaffe tfd fer2013 afew sfew multi-pie bu-3dfe oulu-casia raf-db kdef emotionet rafd affectnet expw ck+48 ferplus
viola-jones lbp-cascade mtcnn ssd intraface mixture-of-trees dlib drmf detector-fusion alignment
offline-augmentation online-augmentation gan-augmentation
equalization equalization-mix clahe contrast-normalization local-normalization zca gamma log dct dog tan-triggs
isotropic-diffusion anisotropic-diffusion homomorphic retinex self-quotient
frontalization gan-frontalization
cnn r-cnn dbn autoencoders sparse-autoencoder vae rnn c3d 3dcnn-dap gan
softmax svm random-forest neural-forest
pre-training multi-stage facenet2expnet inputs-lbp mapped-lbp inputs-gradient gradient-angle inputs-equalized
salient-patches optical-flow
supervised-blocks scoring-ensemble center island locality tuplets exponential-triplet contrastive
covariance-pooling holonet
feature-ensemble majority score-averaging weighted-averaging va-expo-wa hierarchical-committee multitask mscnn iacnn
audn cascades identity-free
decision-aggregation feature-aggregation ppdn dcpn recurrent phrnn sequence-ensemble
cross-database audio 3-d infrared robustness compound action-units valence-arousal fairness occlusion
"""

SHARED = """
name = "survey"
epochs = 2
batch_size = 35
[model]
kind = "residual"
stages = [[8, 2], [16, 2], [16, 1]]
[optimizer]
learning_rate = 0.01
warmup_epochs = 1
"""
ROWS = """
[[stage]]
name = "baseline"
[[stage]]
name = "center"
center = 0.01
[[stage]]
name = "fer2013-alone"
task_weights = { ferplus = 0.0 }
[[stage]]
name = "posed-tuplets"
tuplets = 0.5
"""
LIST = """
[[section]]
title = "Some"
[[section.system]]
name = "cnn"
title = "CNN"
what = "Convolutions."
place = ["training/models.py"]
rows = ["survey/baseline"]
[[section.system]]
name = "center-loss"
title = "Center loss"
what = "Classes gather."
place = ["training/tasks.py"]
rows = ["survey/center", "survey/fer2013-alone"]
[[section.system]]
name = "tuplets"
title = "Tuplets"
what = "People."
place = ["training/losses/tuplets.py"]
rows = ["survey/posed-tuplets"]
needs = ["subjects"]
[[section.system]]
name = "trajectories"
title = "Trajectories"
what = "Points move."
place = ["training/sequences"]
command = "python -m training sequences --data DIR"
needs = ["sequences", "landmarks"]
result = "Elsewhere."
[[section.system]]
name = "audio"
title = "Audio"
what = "Voices."
reason = "There is no microphone."
takes = "a microphone."
"""

Call = Callable[..., Any]


# The list


@pytest.mark.parametrize("name", NAMED.split())
def test_no_system_of_the_survey_is_missing(name: str) -> None:
    assert name in LISTED


def test_each_place_exists() -> None:
    gone = [
        f"{system.name}: {place}" for system in LISTED.values() for place in system.place if not (ROOT / place).exists()
    ]
    assert not gone, f"training/survey/systems.toml names what is not there: {', '.join(gone)}"


def test_each_row_is_a_stage_of_a_recipe() -> None:
    for row in rows_of(SECTIONS):
        recipe, _, stage = row.partition("/")
        assert stage in {one.name for one in stages.load_stages(stages.find(recipe))}, row
    for system in LISTED.values():
        assert system.against.keys() <= set(system.rows), system.name
        assert set(system.against.values()) <= rows_of(SECTIONS).keys(), system.name


def test_each_command_has_a_verb_that_exists(call: Call) -> None:
    verbs = {}
    for program, module in (("training", "training.__main__"), ("datasets", "datasets.__main__")):
        text = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
        verbs[program] = set(re.findall(r'add_parser\(\s*"([\w-]+)"', text))
    verbs["evaluation"] = set(
        re.findall(r"^python -m evaluation (\w+) --help", (ROOT / "evaluation/__main__.py").read_text(), re.M)
    )
    edge_fer = {path.stem for path in (ROOT / "edge_fer" / "cli").glob("*.py")}
    for system in LISTED.values():
        words = system.command.replace("`", "").split()
        if not words:
            continue
        if words[0] == "edge-fer":
            assert words[1] in edge_fer, system.command
        elif words[:2] == ["python", "-m"]:
            program, dot, _ = words[2].partition(".")
            if dot:
                assert (ROOT / words[2].replace(".", "/")).with_suffix(".py").is_file(), system.command
            elif not words[3].startswith("-"):
                assert words[3] in verbs[program], system.command
        else:
            assert words[0] == "python" and (ROOT / words[1]).is_file(), system.command


def test_each_flag_of_a_command_is_one_of_its_package() -> None:
    for system in LISTED.values():
        words = system.command.split()
        if words[:1] != ["python"]:
            continue
        package = (words[2] if words[1] == "-m" else words[1]).replace("/", ".").partition(".")[0]
        source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / package).rglob("*.py"))
        for word in words:
            assert not word.startswith("--") or f'"{word}"' in source, f"{system.name}: {word}"


def test_each_result_links_to_what_is_there() -> None:
    for system in LISTED.values():
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", " ".join((system.result, system.verdict, system.reason))):
            assert (ROOT / "docs" / link).exists(), f"{system.name}: {link}"


def section_of(page: str, anchor: str) -> str:
    """A page of docs, or the part of it below one of its headings."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    if not anchor:
        return text
    parts = re.split(r"^(#+ .+)$", text, flags=re.MULTILINE)
    for at in range(1, len(parts), 2):
        words = parts[at].lstrip("# ").lower()
        if re.sub(r"[^\w\- ]", "", words).replace(" ", "-") == anchor:
            deeper = parts[at].split(" ")[0] + "#"
            end = next((one for one in range(at + 2, len(parts), 2) if not parts[one].startswith(deeper)), len(parts))
            return "".join(parts[at:end])
    raise AssertionError(f"{page} has no heading for #{anchor}")


def test_each_figure_stands_on_the_page_that_it_links_to() -> None:
    """Those with a decimal point, wherever a system says where they are from: a page that is measured anew shows it."""
    checked = 0
    for system in LISTED.values():
        for text in (system.what, system.result, system.verdict, system.reason):
            if links := re.findall(r"\]\(([\w-]+\.md)#?([\w-]*)\)", text):
                there = "".join(section_of(page, anchor) for page, anchor in links)
                for figure in re.findall(r"(?<![\w.])\d+\.\d+", re.sub(r"\]\([^)]*\)", "]", text)):
                    assert re.search(rf"(?<![\d.]){re.escape(figure)}(?!\d)", there), f"{system.name}: {figure}"
                    checked += 1
    assert checked > 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("section = 1", "must be a list"),
        (LIST.replace('"Elsewhere."', '"Elsewhere."\nreason = "No."'), "trajectories wants one of"),
        (LIST.replace('name = "audio"', 'name = "cnn"'), "two systems are called 'cnn'"),
        (LIST.replace('takes = "a microphone."', ""), "audio wants a 'place', or 'reason' and 'takes'"),
        (LIST.replace("title", "titel"), "Did you mean 'section.title'|unknown key"),
    ],
)
def test_a_wrong_list_is_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "systems.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_systems(path)


def test_names_are_of_systems_or_rows() -> None:
    one = System("a", "A", "x", ("training",), rows=("survey/b", "survey/c"))
    other = System("d", "D", "x", ("training",), rows=("survey/c",))
    sections = (Section("s", (one, other)),)
    assert list(rows_of(sections)) == ["survey/b", "survey/c"]
    assert list(rows_of(sections, ("d",))) == ["survey/c"]
    assert list(rows_of(sections, ("b", "survey/c"))) == ["survey/b", "survey/c"]
    with pytest.raises(ConfigError, match="--only nobody: no such system or row"):
        rows_of(sections, ("nobody",))


# The page


def result(row: str, ferplus: float = 0.8, seed: int = 1, **changes: Any) -> Result:
    heads = {"ferplus": {"n": 3199, "accuracy": ferplus, "mean_recall": 0.6}}
    given: dict[str, Any] = {"cross": None, "int8": None, "edge_tpu": None, "against": None, "heads": heads, **changes}
    return Result(row, seed, "data", 10, 88899, 5.05, 2.0, **given)


def against(difference: float, p: float) -> dict[str, Any]:
    return {"row": BASELINE, "heads": {"ferplus": {"difference": difference, "p": p}}}


def test_the_page_has_every_system_and_says_what_was_not_run() -> None:
    text = page(SECTIONS, [])
    titles = [line for line in text.splitlines() if line.startswith("| **")]
    assert len(titles) == len(LISTED)
    assert f"| `baseline` | {NOT_RUN} |" in text
    assert text.count("Documented only.") == sum(bool(one.reason) for one in LISTED.values())


def test_the_page_in_the_repository_is_that_of_the_list_and_the_results() -> None:
    written = (ROOT / "docs" / "survey.md").read_text(encoding="utf-8")
    assert written == page(SECTIONS, read_results(PROJECT)), "`python -m training survey` writes docs/survey.md anew"


def test_figures_are_means_and_differences_are_tested() -> None:
    system = System("a", "A", "x", ("training",), rows=(BASELINE, "survey/center", "survey/cbam"))
    center = [
        result("survey/center", 0.81, 1, against=against(0.01, 0.02)),
        result("survey/center", 0.83, 2, against=against(0.03, 0.01)),
    ]
    int8 = {
        "int8": {"accuracy": {"ferplus": 0.795}},
        "edge_tpu": {"operators": 20, "mapped": 3, "obstacle": "REDUCE_MAX is | not"},
    }
    cross = {"cross": {"data": "ck48", "n": 468, "mean_recall": {"ferplus": 0.5}}}
    text = page(
        (Section("S", (system,)),),
        [result(BASELINE, **int8, **cross), *center, result("survey/cbam", against=against(0.0, 1.0))],
    )
    lines = text.splitlines()
    (base,) = (line for line in lines if line.startswith("| `baseline`"))
    assert "80.00 | - | 60.0 | 50.0 | 0.50 lost | 3 of 20: REDUCE_MAX is \\| not |" in base
    (centers,) = (line for line in lines if line.startswith("| `center`"))
    assert "| 2 | 88,899 | 5.05 | 2.0 | 82.00 ± 1.00 (**+2.00**) |" in centers
    (row,) = (line for line in lines if line.startswith("| **A**"))
    assert row.endswith("| ahead on FER+<br>no difference that this shows |")
    assert "1 of 1" not in text and "of 3 trained rows 3 were run" in text


def test_own_results_take_the_place_of_the_projects() -> None:
    project = [result(BASELINE), result("survey/center")]
    own = [result("survey/center", 0.9)]
    assert with_project(own, project) == [project[0], *own]
    assert with_project([], project) == project
    elsewhere = [dataclasses.replace(own[0], test_sha256="other")]
    assert with_project(elsewhere, project) == elsewhere


@pytest.mark.parametrize("content", ["nonsense\n", "{}\n", "[1]\n"])
def test_a_file_of_something_else_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "survey.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match="move it away"):
        read_results(path)
    write_results(path, [result(BASELINE)])
    path.write_text(path.read_text() + '{"row": "cut o')
    assert read_results(path) == [result(BASELINE)]


# Rows


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A recipe and a list of a few small rows in place of the project's; the folder to work in."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "survey.toml").write_text(SHARED + ROWS)
    (tmp_path / "systems.toml").write_text(LIST)
    monkeypatch.setattr(stages, "RECIPES", recipes)
    few = load_systems(tmp_path / "systems.toml")
    for module in ("training.survey.command.load_systems",):
        monkeypatch.setattr(module, lambda: few)
    monkeypatch.setattr("training.survey.command.PROJECT", tmp_path / "none.jsonl")
    monkeypatch.setattr(measure, "CALIBRATION", 20)
    return tmp_path


@pytest.fixture
def unquantized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are not converted, which takes longer than to train them."""
    monkeypatch.setattr(measure, "quantized", lambda *given: ({"refused": "Not tried."}, None))


def run(call: Call, folder: Path, data: Path, *more: object) -> Any:
    return call(main, "survey", "--data", data, "--runs", folder / "runs", "--output", folder / "page.md", *more)


def test_rows_are_trained_measured_and_gone_on_with(call: Call, small: Path, data: Path) -> None:
    first = run(call, small, data, "--only", "cnn")
    assert first.code == 0, first.err
    had = read_results(small / "runs" / "survey.jsonl")
    assert [one.row for one in had] == [BASELINE]
    (one,) = had
    assert one.heads.keys() == {"ferplus", "fer2013"}
    assert one.int8 and one.int8["accuracy"].keys() == one.heads.keys()
    assert one.edge_tpu and one.edge_tpu["operators"] == one.edge_tpu["mapped"]
    assert one.against is None and one.epochs == 2
    done = run(call, small, data, "--cross", data)
    assert done.code == 0, done.err
    assert "Left out: survey/posed-tuplets wants data with subjects" in done.err
    results = read_results(small / "runs" / "survey.jsonl")
    assert [one.row for one in results] == [BASELINE, "survey/center", "survey/fer2013-alone"]
    assert results[0] == had[0]
    assert results[2].heads.keys() == {"fer2013"}  # the other has learned nothing
    assert results[1].against and results[1].against["heads"].keys() == {"ferplus", "fer2013"}
    assert results[1].cross and results[1].cross["n"] == 42
    text = (small / "page.md").read_text()
    assert text.count("**Center loss**") == 1 and f"`posed-tuplets`: {NOT_RUN}" in text
    assert "There is no microphone." in text
    before = {path: path.stat().st_mtime_ns for path in (small / "runs" / "survey").rglob("*")}
    again = run(call, small, data)
    assert again.code == 0 and "stage" not in again.err
    assert before == {path: path.stat().st_mtime_ns for path in (small / "runs" / "survey").rglob("*")}


def test_a_graph_that_takes_the_runtime_down_leaves_a_word(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "why_it_kills", lambda model, inputs, kernels: "crashes (SIGABRT)")
    splits = datasets.load(data)
    training, test = splits["Training"], splits["PublicTest"]
    model = models.build(ModelRecipe([[8, 2]]), sum(len(head.labels) for head in training.heads))
    refused = {"refused": "in the runtime it crashes (SIGABRT)"}
    assert measure.quantized(model, training, test, training.heads) == (refused, None)


@pytest.mark.usefixtures("unquantized")
def test_a_row_of_another_pipeline_is_held_against_the_baseline(
    call: Call, small: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small / "recipes" / "further.toml").write_text(
        SHARED.replace('"survey"', '"further"') + '[[stage]]\nname = "again"\n'
    )
    (small / "systems.toml").write_text(LIST.replace('["survey/baseline"]', '["survey/baseline", "further/again"]'))
    both = load_systems(small / "systems.toml")
    monkeypatch.setattr("training.survey.command.load_systems", lambda: both)
    done = run(call, small, data, "--only", "again")
    assert done.code == 0, done.err
    assert [one.against for one in read_results(small / "runs" / "survey.jsonl")] == [None]  # there is none yet
    (small / "runs" / "survey.jsonl").unlink()
    assert run(call, small, data, "--only", "cnn").code == 0
    base, again = read_results(small / "runs" / "survey.jsonl")
    assert base.against is None and again.against and again.against["row"] == BASELINE


@pytest.mark.parametrize(
    ("accuracy", "kept"),
    [
        ({"base": {"a": 0.80, "b": 0.60}, "near": {"a": 0.808, "b": 0.61}}, ["base", "near"]),
        ({"base": {"a": 0.80, "b": 0.60}, "near": {"a": 0.811, "b": 0.611}}, ["base"]),
        # By the heads that both have: the other one is easier, or harder, for everybody.
        ({"base": {"a": 0.80, "b": 0.60}, "near": {"a": 0.805}}, ["base", "near"]),
        ({"base": {"a": 0.80, "b": 0.60}, "near": {"a": 0.805}, "to-near": {"a": 0.806}}, ["base", "near", "to-near"]),
        # "near" is not close to anything, yet "to-near" is held against it.
        ({"base": {"a": 0.80, "b": 0.60}, "near": {"a": 0.9}, "to-near": {"a": 0.906}}, ["base", "near", "to-near"]),
        ({"base": {"a": 0.80}, "near": {"b": 0.80}, "to-near": {"b": 0.9}}, ["base"]),
        ({"near": {"a": 0.9}}, []),
        ({}, []),
    ],
)
def test_close_rows_and_what_they_are_held_against_go_on(
    accuracy: dict[str, dict[str, float]], kept: list[str]
) -> None:
    heads = {row: {head: {"accuracy": value} for head, value in own.items()} for row, own in accuracy.items()}
    results = [SimpleNamespace(row=row, seed=1, heads=own) for row, own in heads.items()]
    later = [SimpleNamespace(row="near", seed=2, heads={"a": {"accuracy": 0.8}})]
    others = {"base": "base", "near": "base", "to-near": "near"}
    systems = {row: SimpleNamespace(other=others.__getitem__) for row in others}
    assert close_rows(list(others), systems, [*results, *later]) == kept  # type: ignore[arg-type]


@pytest.mark.usefixtures("unquantized")
def test_close_rows_get_further_seeds(call: Call, small: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.survey.rows.CLOSE", 1.0)
    done = run(call, small, data, "--only", "baseline", "--seeds", "2")
    assert done.code == 0, done.err
    results = read_results(small / "runs" / "survey.jsonl")
    assert [(one.row, one.seed) for one in results] == [(BASELINE, 1), (BASELINE, 2)]
    seeds = [
        json.loads((small / "runs" / place / "run.json").read_text())["seed"]
        for place in ("survey/baseline", "seed2/survey/baseline")
    ]
    assert seeds == [1, 2]


@pytest.mark.usefixtures("unquantized")
def test_a_budget_that_ends_on_the_way_leaves_a_page_and_goes_on(
    call: Call, small: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = pipeline.train

    def cut(recipe: Any, *given: Any, **options: Any) -> None:
        if recipe.center:
            signal.raise_signal(signal.SIGALRM)  # as the clock does
        train(recipe, *given, **options)

    monkeypatch.setattr(pipeline, "train", cut)
    ended = run(call, small, data, "--budget", "600")
    assert ended.code == 0, ended.err
    assert "The 600 minutes are over: the same command goes on from here." in ended.err
    assert "1 of 4 rows are done; not yet: survey/center, survey/fer2013-alone, survey/posed-tuplets." in " ".join(
        ended.err.split()
    )
    assert f"`center`: {NOT_RUN}" in (small / "page.md").read_text()
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL and signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    monkeypatch.setattr(pipeline, "train", train)
    assert run(call, small, data).code == 0
    assert [one.row for one in read_results(small / "runs" / "survey.jsonl")][:2] == [BASELINE, "survey/center"]


@pytest.fixture
def posed(tmp_path: Path) -> Path:
    """Faces of six people in the folders train and validation, named as those of CK+48."""
    noise = np.random.default_rng(5)
    for subject in range(6):
        for label, name in enumerate(("anger", "happy", "surprise")):
            for frame in range(4):
                part = "validation" if subject == 5 else "train"
                place = tmp_path / "posed" / part / name / f"S{subject:03d}_{label:03d}_{frame:08d}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(place), pattern(label, noise))
    return tmp_path / "posed"


@pytest.mark.usefixtures("unquantized")
def test_a_row_without_its_package_leaves_the_others(
    call: Call, small: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = pipeline.train

    def lacking(recipe: Any, *given: Any, **options: Any) -> None:
        if not recipe.center:
            raise UnavailableError("No package x: pip install x.")
        train(recipe, *given, **options)

    monkeypatch.setattr(pipeline, "train", lacking)
    named = run(call, small, data, "--only", "baseline")
    assert (named.code, named.err.splitlines()[-1]) == (69, "training: No package x: pip install x.")
    others = run(call, small, data)
    assert others.code == 0, others.err
    assert "Left out: survey/baseline. No package x" in others.err
    assert [one.row for one in read_results(small / "runs" / "survey.jsonl")] == ["survey/center"]


@pytest.mark.usefixtures("unquantized")
def test_people_are_wanted_where_a_row_asks_who_it_is(call: Call, small: Path, data: Path, posed: Path) -> None:
    refused = run(call, small, data, "--only", "tuplets")
    assert refused.code == 65
    assert refused.err.splitlines()[-1].endswith(
        f"survey/posed-tuplets wants data with subjects, and {data} tells none."
    )
    done = run(call, small, posed, "--only", "tuplets", "baseline")
    assert done.code == 0, done.err
    results = read_results(small / "runs" / "survey.jsonl")
    assert [(one.row, one.heads["expression"]["n"]) for one in results] == [
        (BASELINE, 12),
        ("survey/posed-tuplets", 12),
    ]
    assert "expression" in (small / "page.md").read_text()


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--only", "nothing"), 78, "--only nothing: no such system or row"),
        (("--only", "trajectories"), 78, "which wants data with sequences and landmarks"),
        (("--only", "audio"), 78, "--only audio: it is documented only. There is no microphone."),
        (("--seeds", "0"), 78, "--seeds must be at least 1, not 0."),
        (("--budget", "0"), 78, "--budget must be minutes, more than 0, not 0."),
        (("--budget", "nan"), 78, "--budget must be minutes, more than 0, not nan."),
        (("--cross", "/nowhere"), 66, "No folder /nowhere"),
    ],
)
def test_wrong_words_are_one_sentence(
    more: tuple[str, ...], code: int, message: str, call: Call, small: Path, data: Path
) -> None:
    answer = run(call, small, data, *more)
    assert answer.code == code, answer.err
    assert message in answer.err
    assert "Traceback" not in answer.err
    assert not (small / "runs" / "survey").exists()


def test_nothing_is_trained_without_data(call: Call, small: Path) -> None:
    output = small / "deep" / "page.md"
    assert call(main, "survey", "--output", output, "--runs", small / "runs").code == 0
    assert NOT_RUN in output.read_text()
    answer = call(main, "survey", "--output", output, "--only", "cnn")
    assert answer.code == 78 and "Nothing is trained without --data" in answer.err


def test_one_class_is_nothing_to_compare(call: Call, small: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(6)
    for number in range(6):
        place = tmp_path / "one" / "train" / "happy" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place), pattern(1, noise))
    answer = run(call, small, tmp_path / "one")
    assert answer.code == 65
    assert "are of one class: nothing can be compared." in answer.err
