"""The supervised scoring ensemble: class scores from several depths of one network, read by a second level.

Hu et al., "Learning Supervised Scoring Ensemble for Emotion Recognition in the Wild", ICMI 2017. Supervised blocks at a
shallow, an intermediate and a deep place give class scores, each with a loss of its own; the scores are concatenated,
and a connection layer with a softmax of its own, the second level, makes the answer of them:
L = L_second + sum over the blocks of a_k L_k, with ``auxiliary_heads`` for all a_k.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import keras
from keras import layers

from edge_fer.errors import ConfigError

SCORE = "score_"
"""Before the names of the blocks' score layers."""


def last_map(core: keras.Model) -> keras.KerasTensor:
    """What a network's one trunk ends in, before its global average: (batch, rows, columns, channels).

    Raises:
        ConfigError: there are several trunks, or none.
    """
    # Attention has averages of its own, which keep their axes.
    averages = [one for one in core.layers if isinstance(one, layers.GlobalAveragePooling2D) and not one.keepdims]
    if len(averages) != 1:
        raise ConfigError(f"The network has {len(averages)} trunks of convolutions, and this wants one.")
    end: keras.KerasTensor = averages[0].input
    return end


def stage_ends(core: keras.Model) -> list[keras.KerasTensor]:
    """What stands at the end of each stage, of all that has one height and width, from the first convolution on.

    Raises:
        ConfigError: see ``last_map``.
    """
    last_map(core)
    learned = itertools.dropwhile(lambda layer: not layer.weights, core.layers)
    ends = {layer.output.shape[1]: layer.output for layer in learned if layer.output.shape[2:3] > (1,)}
    return list(ends.values())


def with_scoring(core: keras.Model, positions: Sequence[str]) -> keras.Model:
    """A network whose logits come from the scores of supervised blocks, its own scores among them.

    A block is a global average pooling and a dense layer. Scores are logits: a softmax between the levels would cost
    int8 its resolution. The shallow block stands at the end of the first stage, the intermediate one in the middle, the
    deep one where the network had its last layer.

    Args:
        core: made by a builder of ``models``; its last layer is replaced.
        positions: of the blocks: "shallow", "intermediate", "deep".

    Returns:
        A model of the same name; the last layer is called "logits" as before, the blocks' layers "score_POSITION".

    Raises:
        ConfigError: there are too few stages, no deep block, several trunks, or a forest in place of the last layer.
    """
    if "deep" not in positions:
        raise ConfigError("model.scoring wants a deep block: without it, all behind the last one learns nothing.")
    last, ends = core.get_layer("logits"), stage_ends(core)
    if not isinstance(last, layers.Dense):
        raise ConfigError("model.scoring reads the scores of dense layers: leave model.forest out.")
    if (len(ends) < 3 and "intermediate" in positions) or len(ends) < 2:
        raise ConfigError(
            "model.stages has too few heights and widths for model.scoring: a shallow and a deep block want two, an "
            "intermediate one wants three."
        )
    places = {"shallow": ends[0], "intermediate": ends[len(ends) // 2]}
    scores = []
    for position in ("shallow", "intermediate", "deep"):
        if position in positions:
            pooled = last.input if position == "deep" else layers.GlobalAveragePooling2D()(places[position])
            scores.append(layers.Dense(last.units, dtype="float32", name=f"{SCORE}{position}")(pooled))
    joined = layers.Concatenate()(scores) if len(scores) > 1 else scores[0]
    return keras.Model(core.input, layers.Dense(last.units, dtype="float32", name="logits")(joined), name=core.name)
