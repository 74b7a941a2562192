"""What makes int8 lose less without training, tried in this order until the gate is passed, and what came of each.

Equalization and bias correction: Nagel et al., arXiv 1906.04721. A range that only some faces stretch costs all others
steps, so that fewer faces to calibrate on can be the better choice.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial

from rich.console import Console

from export.convert import convert, to_int8
from export.equalize import equalize
from export.fold import correct_bias
from export.result import Attempt, Export
from export.saved_model import frozen
from export.verify import refusals, verify

LEAST_FACES = 20
"""With fewer to calibrate on, single faces would decide."""


@dataclass(frozen=True)
class Remedy:
    """One way to quantize.

    Attributes:
        words: what it is called.
        equalize: equalize channels first.
        correct: take the mean error of int8 out of the biases.
        part: fraction of the calibration faces that is used.
    """

    words: str
    equalize: bool = False
    correct: bool = False
    part: float = 1.0


LADDER = (
    Remedy("as it is"),
    Remedy("equalized", equalize=True),
    Remedy("biases corrected", correct=True),
    Remedy("equalized and biases corrected", equalize=True, correct=True),
    Remedy("calibrated on a fifth of the faces", part=0.2),
    Remedy("equalized, on a fifth of the faces", equalize=True, part=0.2),
    Remedy("biases corrected, on a fifth of the faces", correct=True, part=0.2),
    Remedy("equalized and biases corrected, on a fifth of the faces", equalize=True, correct=True, part=0.2),
)


def quantize(export: Export) -> Export:
    """Quantize and measure, by one remedy after the other until int8 is as good as float; the best where none is.

    Raises:
        EdgeFerError: an operator cannot be converted, or there is nothing to measure.
    """
    options, best = export.options, None
    tried: list[Attempt] = []
    wanted = [dataclasses.replace(one, correct=one.correct or options.correct_bias) for one in LADDER]
    if frozen(export.model):
        wanted = [one for one in wanted if not (one.equalize or one.correct)]
    done: set[tuple[bool, bool, int]] = set()
    for remedy in wanted:
        count = max(LEAST_FACES, round(remedy.part * len(export.calibration)))
        faces = export.calibration[:count]
        key = (remedy.equalize, remedy.correct, len(faces))
        if key in done:
            continue
        done.add(key)
        if tried:
            Console().print(f"int8 is refused {tried[-1].words}. Trying it {remedy.words}.", highlight=False)
        model = equalize(export.model) if remedy.equalize else export.model
        if remedy.correct:
            to = partial(to_int8, tensors=faces, console=Console(stderr=True), per_tensor=options.per_tensor)
            model = correct_bias(model, faces, to)
        result = verify(convert(dataclasses.replace(export, prepared=model, calibration=faces)))
        rows = [row for row in result.comparisons if row.variant == "int8"]
        tried.append(Attempt(remedy.words, min(row.agreement for row in rows), max(row.drop for row in rows)))
        result = dataclasses.replace(result, equalized=remedy.equalize, bias_corrected=remedy.correct)
        if best is None or tried[-1].agreement > max(one.agreement for one in tried[:-1]):
            best = result
        against_float = refusals(result.comparisons, options.max_drop, options.min_agreement)
        if not against_float or len(result.reasons) > len(against_float):  # a floor that no remedy raises
            best = result
            break
        export = dataclasses.replace(export, logits={"Keras": result.logits["Keras"]})
    assert best is not None, "the ladder has rungs"
    if len(tried) > 1:
        said = "; ".join(f"{one.words}: {one.agreement:.2%} agree, {one.drop:+.2f} points lost" for one in tried)
        Console().print(f"Tried: {said}.", highlight=False)
    return dataclasses.replace(best, tried=tuple(tried))
