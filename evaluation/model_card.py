"""The model card, docs/model-card.md: written from a bundle and what ``python -m evaluation`` measured of it."""

from __future__ import annotations

import math
from typing import Any

from edge_fer.core import Expression
from edge_fer.model.bundle import Bundle

FER2013 = ("ferplus", "fer2013")
"""Heads of what has learned from FER2013."""
LICENSE = """\
FER2013 was collected from the web for a Kaggle challenge; its pictures are for research, and the rights of the
people in them were not cleared. FER+ labels are MIT. The model is weights, not pictures, and the demo's faces are means
of many different pictures each; still, who ships a product should take advice or train on data of their own."""
LIMITS = """\
Disgust, fear and contempt are rare in the data and missed more often than others: with 13 faces of contempt in
PublicTest nobody can tell how often it is found{silence}. FER2013 has no notes on who is in its
pictures: differences between groups of people have not been measured. Nor has anything been measured on a board or with
a camera: scenes are faces of the data set pasted into backgrounds."""
OTHER_LICENSE = """\
The terms of the images and labels that the model has learned from are their owners', and hold for what is made of them.
So do those of a model that it began from or learned from."""
OTHER_LIMITS = """\
The recall of an expression of which few faces were measured is hardly known. Differences between groups of people have
not been measured here; `python -m evaluation groups` does where the data tells of them. Nor has anything been measured
on a board or with a camera: scenes are faces of the data set pasted into backgrounds."""

_SPLITS = ("Training", "PublicTest", "PrivateTest")


def wilson(fraction: float, n: int) -> tuple[float, float]:
    """The 95 % confidence interval of a fraction of ``n`` (Wilson, JASA 1927)."""
    z = 1.959964
    center = (fraction + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(fraction * (1 - fraction) / n + z * z / (4 * n * n))
    return max(0.0, center - half), min(1.0, center + half)  # rounding may leave -0.0000...


def model_card(bundle: Bundle, size_bytes: int, results: dict[str, Any]) -> str:
    """The card as Markdown.

    Args:
        bundle: the model with its metadata, whose facts the exporter wrote.
        size_bytes: of the bundle.
        results: of ``python -m evaluation``.
    """
    lines = [
        f"# Model card: {bundle.metadata.name}",
        "",
        "Written by `python -m evaluation --model-card`; do not edit. The numbers are of this very file.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in _facts(bundle, size_bytes)),
        "",
        *_metrics(bundle, results),
        "",
        *_decision(bundle, results),
        "",
        *_corruptions(bundle, results),
        "",
        *_through_detector(bundle, results),
    ]
    known = any(head.name in FER2013 for head in bundle.metadata.heads)
    lines += ["", "## License of the data", "", LICENSE if known else OTHER_LICENSE, *_further(bundle), ""]
    lines += ["## Limits", "", _limits(bundle) if known else OTHER_LIMITS, ""]
    return "\n".join(lines)


def _limits(bundle: Bundle) -> str:
    rule = bundle.metadata.decision
    silent = rule is not None and Expression.CONTEMPT not in rule.labels
    return LIMITS.format(silence=", and it is not reported" if silent else "")


def _further(bundle: Bundle) -> list[str]:
    """That it has learned from other data sets too, where it has."""
    samples = bundle.metadata.facts.get("training", {}).get("samples", {})
    names = [f"{name} ({count:,} faces)" for name, count in samples.items() if name not in _SPLITS]
    if not names:
        return []
    return [
        "",
        f"The model has learned from other data too, with terms of their own: {', '.join(names)}. What is measured on",
        "them is memory, unless other people are in the part that is measured.",
    ]


def _facts(bundle: Bundle, size_bytes: int) -> list[tuple[str, str]]:
    metadata, facts, spec = bundle.metadata, bundle.metadata.facts, bundle.metadata.preprocess
    training = facts.get("training", {})
    shape = bundle.selftest.inputs.shape[1:]
    heads = "; ".join(f"`{head.name}`: {', '.join(head.labels)}" for head in metadata.heads)
    alpha = training.get("alpha", training.get("share"))  # its name in older bundles
    interpolated = f"; weights {alpha:.0%} of the way from where it began" if alpha else ""
    parameters = f", {facts['parameters']:,} parameters before folding" if "parameters" in facts else ""
    rows = [
        ("task", "expression of one cropped face; not identity, not feeling"),
        ("file", f"{size_bytes / 1000:.0f} kB, full int8{parameters}"),
        ("input", f"uint8 {(1, *shape)}, raw gray pixels; preprocessing version {spec.version}"),
        ("crop", f"the detector's box, {spec.margin:.0%} wider on every side; alignment: {spec.alignment}"),
        ("illumination", ", then ".join(spec.illumination)),
        ("output", f"logits of {len(metadata.heads)} heads: {heads}"),
        ("reported", _reported(bundle)),
        ("temperatures", ", ".join(f"{head.name} {head.temperature}" for head in metadata.heads)),
        ("recipe", f"{training['recipe']}, seed {training.get('seed')}{interpolated}" if "recipe" in training else ""),
        ("samples", ", ".join(f"{name} {count:,}" for name, count in training.get("samples", {}).items())),
        ("versions", ", ".join(f"{name} {version}" for name, version in training.get("versions", {}).items())),
        ("FlatBuffer", f"SHA-256 {metadata.model_sha256}"),
    ]
    return [row for row in rows if row[1]]  # facts are as many as the exporter wrote


def _reported(bundle: Bundle) -> str:
    heads, rule = bundle.metadata.heads, bundle.metadata.decision
    if rule is None:
        return f"the first head as trained: {', '.join(heads[0].labels)}"
    weights = ", ".join(f"{head.name} {weight:g}" for head, weight in zip(heads, rule.weights, strict=True))
    return (
        f"by the rule `balanced`: {', '.join(rule.labels)}; tau {rule.tau:g}, weights {weights}, temperature "
        f"{rule.temperature:g}"
    )


_BALANCED = (
    "All other tables are of the raw heads. The answer is made of them by a decision rule. `balanced`, the",
    "default, takes the class mix of the training data out of it (Menon et al., arXiv 2007.07314);",
)


def _decision(bundle: Bundle, results: dict[str, Any]) -> list[str]:
    """The reported answer: rule, doubt, consistency."""
    rows = dict(results["decision"])
    facts = bundle.metadata.facts.get("decision", {})
    if facts and results["split"] == facts.get("split"):
        rows[f"balanced, cross-fitted in {facts['folds']} folds"] = facts
    head = bundle.metadata.heads[0]
    if not rows:
        return ["## What the device reports", "", "Not measured: no image has a label that is reported."]
    measured = f"Measured on the faces of {results['split']} that {head.name} labels;"
    balanced = [*_BALANCED, f"`--decision as-trained` leaves it in. {measured}"]
    trained = ["The answer is what the first head says, as it was trained.", measured]
    lines = [
        "## What the device reports",
        "",
        *(balanced if bundle.metadata.decision else trained),
        "one whose expression is not reported counts as wrong in the accuracy.",
        "",
        "| rule | N | accuracy | mean recall of what is reported | ECE, classes alike |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {row['n']:,} | {row['accuracy']:.2%} | {row['mean_recall']:.2%} ± "
            f"{row['mean_recall_95']:.2%} | {row['balanced_ece']:.3f} |"
            for name, row in rows.items()
        ),
        "",
    ]
    for name, row in rows.items():
        recall = ", ".join(f"{label} {one:.0%} of {row['faces'][label]}" for label, one in row["recall"].items())
        lines.append(f"- Recall, {name}: {recall}.")
    same = results["consistency"]
    views = ", ".join(f"{name} {fraction:.1%}" for name, fraction in same["same"].items())
    lines.append(f"- The same answer in another view, {same['n']:,} faces: {views}.")
    if doubt := facts.get("doubt"):
        lines += ["", *_doubt(doubt)]
    return lines


def _doubt(figures: dict[str, Any]) -> list[str]:
    curve = ", ".join(
        f"{error:.1%} at {5 * (place + 1)} %" for place, error in enumerate(figures["curve"]) if place % 2
    )
    return [
        "### Doubt",
        "",
        "Answers that are not marked `uncertain`, on PublicTest, cross-fitted; `balanced`. N as above.",
        "",
        "| faces | error | answered | error of the answers |",
        "|---|---|---|---|",
        *(
            f"| {name} | {row['error']:.1%} | {row['answered']:.1%} | {row['error_answered']:.1%} |"
            for name, row in figures["conditions"].items()
        ),
        "",
        f"- Error by coverage: {curve}; area under the curve {figures['area']:.4f}.",
        f"- Of the wrong answers {figures['wrong_left_at_90']:.2f} are left at 90 % coverage; "
        f"{figures['wrong_left_at_90_by_confidence']:.2f} if confidence alone decided.",
    ]


def _metrics(bundle: Bundle, results: dict[str, Any]) -> list[str]:
    exported = bundle.metadata.facts.get("public_test", {})
    lines = [
        f"## {results['split']}",
        "",
        "PublicTest served to choose the model and to fit the temperatures. Images of Training that also stand in",
        *_training_note(bundle),
        "",
        "| head | images | N | accuracy, int8 | 95 % interval | float | macro F1 | ECE |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in results["clean"].items():
        head, known = name.removesuffix("_unseen"), exported.get(name, {})
        low, high = wilson(row["accuracy"], row["n"])
        lines.append(
            f"| {head} | {'all' if name == head else 'not in Training'} | {row['n']:,} | {row['accuracy']:.2%} "
            f"| {low:.1%} to {high:.1%} | {_percent(known.get('accuracy_float'))} | {row['macro_f1']:.3f} "
            f"| {known.get('ece', '')} |"
        )
    lines += ["", "float and ECE are as the exporter measured them on PublicTest.", ""]
    for one in bundle.metadata.heads:
        if one.name not in results["clean"]:
            lines.append(f"- {one.name}: not measured, no image has a label that this head knows.")
            continue
        recall = results["clean"][one.name]["recall"]
        recalls = ", ".join(f"{label} {_percent(value, 0)}" for label, value in recall.items())
        lines.append(f"- Recall, {one.name}: {recalls}.")
        if one.name in results["confused"]:
            lines.append(f"- {results['confused'][one.name]:.1%} of the neutral faces are called sad ({one.name}).")
    return lines


def _training_note(bundle: Bundle) -> list[str]:
    if all(head.name != "ferplus" for head in bundle.metadata.heads):
        return ["a test split were left out of training."]
    return [
        "a test split were left out of training. FER+ is measured by its strict rule: more than half of the raters",
        "agree.",
    ]


def _corruptions(bundle: Bundle, results: dict[str, Any]) -> list[str]:
    names = [head.name for head in bundle.metadata.heads]
    lines = ["## Corruptions", "", "Accuracy when every image is corrupted. N as above.", ""]
    lines += [f"| corruption | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for corruption, row in results["corruptions"].items():
        lines.append(f"| {corruption} | {' | '.join(_percent(row.get(name)) for name in names)} |")
    return lines


def _through_detector(bundle: Bundle, results: dict[str, Any]) -> list[str]:
    names = [head.name for head in bundle.metadata.heads]
    lines = ["## Through the detector", ""]
    lines += ["Faces of the data set, pasted into scenes of 320x240 and found again by edge-fer's own detector. Both"]
    lines += ["accuracies are of the faces that were found: as the data set crops them, and as it frames them.", ""]
    lines += [f"| face | found | {' | '.join(f'{name} crop | {name} found' for name in names)} |"]
    lines += ["|---|---|" + "---|---|" * len(names)]
    for kind, row in results["through_detector"].items():
        cells = " | ".join(
            f"{_percent(row['crop'].get(name))} | {_percent(row['through'].get(name))}" for name in names
        )
        lines.append(f"| {kind} | {row['found']:.1%} | {cells} |")
    return lines


def _percent(fraction: float | None, digits: int = 2) -> str:
    return "-" if fraction is None else f"{fraction:.{digits}%}"
