"""docs/survey.md: the survey's systems as a map of the field, with the figures of those that were trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from training.stages import load_stages
from training.survey.results import Result
from training.survey.systems import BASELINE, Section, System

ROOT = Path(__file__).resolve().parents[2]
NOT_RUN = "not run yet"
CERTAIN = 0.05
"""p of McNemar's test below which a difference is called one."""
HEADS = {"ferplus": "FER+", "fer2013": "FER2013"}

_HEAD = """# The survey, system by system

"Deep Facial Expression Recognition: A Survey" (Li & Deng, [arXiv 1804.08348](https://arxiv.org/abs/1804.08348)) names
the systems below, in this order. Each row says what a system is, where it lives in this repository, how it is used,
what came out, and whether it pays on a small board; those that are not built say why, and what they would take. Of
{systems} systems {trained} are trained by one command, {elsewhere} are measured elsewhere or are tools, and
{documented} are documented only; of {rows} trained rows {run} were run.

`python -m training survey` writes this page from [systems.toml](../training/survey/systems.toml) and
[results.jsonl](../training/survey/results.jsonl): change those, not this.

```
python -m training survey --data ~/fer2013 --cross ~/CK+48                 all rows, from where it was cut off
python -m training survey --data ~/fer2013 --only center cbam --seeds 3    some, with more seeds where it is close
python -m training survey --data ~/fer2013 --budget 60                     an hour; the same command goes on
python -m training survey                                                  this page alone
```

## The protocol of trained rows

One network for all ({size}that of `nano` with a stem of stride 2, so that a row takes minutes on a laptop),
{epochs} epochs from scratch in batches of {batch} on FER2013's Training faces with both labelings, the labels alone. A
row differs from `baseline` in what its stage in [survey.toml](../training/recipes/survey.toml) or
[survey-pretraining.toml](../training/recipes/survey-pretraining.toml) says. So it tells what a method does for a small
network at a small budget, not what it is worth in the setting of its paper; what longer trainings reach is in
[experiments](experiments.md).

Accuracy in % on PublicTest (FER+ strict and FER2013) of the heads that a row trains, and their mean recall. In
brackets: the difference to `baseline`, or to the row that is named, on the same images; bold where McNemar's exact test
says p < {certain}. Of twenty rows that differ in nothing one would look so. With several seeds figures are means, ± is
half of their range, and bold is what all seeds say. 95 % intervals of one figure are about 1.4 points (FER+) and 1.6
(FER2013) to either side.
Cross-database: mean recall on faces of another set, which nobody trained on, over the expressions that both heads have.
Minutes are wall time on two cores that other work shared, with what a row is made from. Int8: accuracy that plain
post-training quantization loses, in points, of the head that loses most. Edge TPU: how many of the int8 graph's
operators come before the first one that its list speaks against; necessary, not sufficient.
"""


def page(sections: Sequence[Section], results: Sequence[Result]) -> str:
    """The page in Markdown, with links as from the folder docs.

    Args:
        sections: of ``systems.load_systems``.
        results: of all rows and seeds that were run.
    """
    by_row: dict[str, list[Result]] = {}
    for one in results:
        by_row.setdefault(one.row, []).append(one)
    systems = [system for section in sections for system in section.system]
    rows = list(dict.fromkeys([BASELINE, *(row for system in systems for row in system.rows)]))
    trained = sum(bool(system.rows) for system in systems)
    documented = sum(bool(system.reason) for system in systems)
    recipe = load_stages(ROOT / "training" / "recipes" / "survey.toml")[0].recipe
    base = by_row.get(BASELINE, [])
    head = _HEAD.format(
        systems=len(systems),
        trained=trained,
        elsewhere=len(systems) - trained - documented,
        documented=documented,
        rows=len(rows),
        run=sum(row in by_row for row in rows),
        size=f"{base[0].parameters:,} parameters, {base[0].mmac:.2f} MMAC: " if base else "",
        epochs=recipe.epochs,
        batch=recipe.batch_size,
        certain=CERTAIN,
    )
    lines = [head, *_figures(rows, by_row)]
    for section in sections:
        lines += [f"\n## {section.title}\n", *([section.about + "\n"] if section.about else [])]
        lines += ["| system | what it is | where | command | result | verdict |", "|---|---|---|---|---|---|"]
        lines += [_system(system, by_row) for system in section.system]
    return "\n".join(line.rstrip(" ") for line in lines) + "\n"


def _figures(rows: Sequence[str], by_row: Mapping[str, list[Result]]) -> Iterator[str]:
    measured = [one for results in by_row.values() for one in results]
    n = {name: int(one.heads[name]["n"]) for one in measured for name in one.heads}
    elsewhere = [row for row in rows if row in by_row and not HEADS.keys() & by_row[row][0].heads.keys()]
    titles = [f"{title}{f', N = {n[name]:,}' if name in n else ''}" for name, title in HEADS.items()]
    cross = next((f"{one.cross['data']}, N = {one.cross['n']}" for one in measured if one.cross), "cross-database")
    columns = ["row", "seeds", "parameters", "MMAC", "minutes", *titles, "mean recall", cross, "int8", "Edge TPU"]
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in (row for row in rows if row not in elsewhere):
        name = _short(row)
        if row not in by_row:
            yield f"| `{name}` | {NOT_RUN} |" + " |" * 9
            continue
        of_row = by_row[row]
        first = of_row[0]
        cells = [*_costs(of_row), *(_accuracy(of_row, head) for head in HEADS)]
        cells.append(
            " / ".join(
                _mean([one.heads[head]["mean_recall"] for one in of_row]) for head in HEADS if head in first.heads
            )
        )
        crossed = [one.cross for one in of_row if one.cross]
        cells.append(
            " / ".join(_mean([one["mean_recall"][head] for one in crossed]) for head in HEADS if head in first.heads)
            if crossed
            else "-"
        )
        cells += [_int8(of_row), _edge_tpu(first)]
        yield f"| `{name}` | " + " | ".join(cells) + " |"
    if elsewhere:
        yield "\nOn other data, of people who are not in Training:\n"
        yield "| row | seeds | parameters | MMAC | minutes | head | N | accuracy | mean recall |"
        yield "|---|---|---|---|---|---|---|---|---|"
    for row in elsewhere:
        of_row = by_row[row]
        cells = [f"`{_short(row)}`", *_costs(of_row)]
        for head, figures in of_row[0].heads.items():
            recall = _mean([one.heads[head]["mean_recall"] for one in of_row])
            yield "| " + " | ".join([*cells, head, f"{int(figures['n']):,}", _accuracy(of_row, head), recall]) + " |"


def _short(row: str) -> str:
    return row.partition("/")[2]


def _costs(of_row: Sequence[Result]) -> list[str]:
    """Seeds, parameters, MMAC and minutes."""
    first, spent = of_row[0], np.mean([one.minutes for one in of_row])
    return [str(len(of_row)), f"{first.parameters:,}", f"{first.mmac:.2f}", f"{spent:.1f}"]


def _accuracy(of_row: Sequence[Result], head: str) -> str:
    if head not in of_row[0].heads:
        return "-"
    text = _mean([one.heads[head]["accuracy"] for one in of_row], digits=2)
    differences = [one.against["heads"][head] for one in of_row if one.against and head in one.against["heads"]]
    if not differences:
        return text
    against = next(one.against["row"] for one in of_row if one.against)
    to = "" if against == BASELINE else f" to `{_short(against)}`"
    difference = f"{100 * np.mean([one['difference'] for one in differences]):+.2f}"
    certain = all(one["p"] < CERTAIN for one in differences)
    return f"{text} ({f'**{difference}**' if certain else difference}{to})"


def _mean(values: Sequence[float], digits: int = 1) -> str:
    spread = f" ± {50 * (max(values) - min(values)):.{digits}f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.{digits}f}{spread}"


def _int8(of_row: Sequence[Result]) -> str:
    tried = [(one, one.int8) for one in of_row if one.int8]
    if not tried:
        return "-"
    if refused := next((int8["refused"] for _, int8 in tried if "refused" in int8), ""):
        return f"no: {_cell(refused)}"
    lost = [100 * (one.heads[head]["accuracy"] - int8["accuracy"][head]) for one, int8 in tried for head in one.heads]
    return f"{max(lost):.2f} lost" if max(lost) > 0 else "nothing lost"


def _edge_tpu(result: Result) -> str:
    told = result.edge_tpu
    if told is None:
        return "-"
    if not told["obstacle"]:
        return f"all {told['operators']}"
    return f"{told['mapped']} of {told['operators']}: {_cell(told['obstacle'])}"


def _system(system: System, by_row: Mapping[str, list[Result]]) -> str:
    where = " ".join(f"[{place.rstrip('/').rpartition('/')[2]}](../{place})" for place in system.place) or "-"
    command = system.command or (f"python -m training survey --data DIR --only {system.name}" if system.rows else "")
    result, verdict = system.result, system.verdict
    if system.rows:
        result = "<br>".join(_in_words(row, by_row.get(row, ())) for row in system.rows)
        told = [row for row in system.rows if row not in system.against.values()]
        verdict = verdict or "<br>".join(filter(None, (_verdict(by_row.get(row, ())) for row in told)))
    if system.reason:
        result, verdict = f"Documented only. {system.reason}", f"It would take {system.takes}"
    cells = [f"**{system.title}**", system.what, where, f"`{_cell(command)}`" if command else "-", result, verdict]
    return "| " + " | ".join(cells) + " |"


def _in_words(row: str, of_row: Sequence[Result]) -> str:
    name = _short(row)
    if not of_row:
        return f"`{name}`: {NOT_RUN}"
    figures = (f"{HEADS.get(head, head)} {_accuracy(of_row, head)}" for head in of_row[0].heads)
    return f"`{name}`: {', '.join(figures)}"


def _verdict(of_row: Sequence[Result]) -> str:
    """Whether a row is ahead of what it is held against, as far as the paired test tells."""
    if not of_row or of_row[0].row == BASELINE:
        return ""
    tested = [one.against["heads"] for one in of_row if one.against]
    if not tested:
        return "nothing to hold it against yet"
    said = []
    for head in of_row[0].heads:
        seen = [heads[head] for heads in tested if head in heads]
        if seen and all(one["p"] < CERTAIN for one in seen) and len({one["difference"] > 0 for one in seen}) == 1:
            said.append(f"{'ahead' if seen[0]['difference'] > 0 else 'behind'} on {HEADS.get(head, head)}")
    return ", ".join(said) or "no difference that this shows"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
