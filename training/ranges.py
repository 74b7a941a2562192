"""Which numbers a recipe can have: the rest would train nothing, or end in a traceback, after minutes as a rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

from edge_fer.errors import ConfigError, UsageError

MOST_SEED = 2**31 - 1
"""What all that draw by a seed take, even with the small numbers that some add to it."""

Range = tuple[str, Callable[[float], bool], tuple[str, ...]]
"""In words, as a test (no number is in none of them), and the keys that it is for."""

RECIPE: tuple[Range, ...] = (
    (f"0 to {MOST_SEED}", lambda value: 0 <= value <= MOST_SEED, ("seed",)),
    (
        "at least 1",
        lambda value: 1 <= value < math.inf,
        ("epochs", "batch_size", "data.further_times", "pretrain.epochs", "pretrain.patch_px"),
    ),
    (
        "0 or more",
        lambda value: 0 <= value < math.inf,
        (
            *("mixup", "center", "island", "auxiliary_heads", "consistency", "locality", "contrastive"),
            *("tuplets", "identity", "model.squeeze_excitation", "model.forest", "augment.cutout_px"),
            *("optimizer.weight_decay", "optimizer.warmup_epochs", "class_balance.tau"),
            "pretrain.contraction",
        ),
    ),
    (
        "more than 0",
        lambda value: 0 < value < math.inf,
        ("optimizer.learning_rate", "distill.temperature"),
    ),
    (
        "0 to 1",
        lambda value: 0 <= value <= 1,
        (
            *("augment.shift", "augment.brightness", "augment.contrast", "augment.blur"),
            *("optimizer.ema", "distill.weight"),
        ),
    ),
    (
        "0 to less than 1",
        lambda value: 0 <= value < 1,
        ("label_smoothing", "model.dropout", "augment.scale", "class_balance.beta"),
    ),
    ("between 0 and 1", lambda value: 0 < value < 1, ("pretrain.mask",)),
    ("0 to 0.5, half of the side", lambda value: 0 <= value <= 0.5, ("augment.edges",)),
    ("0 to 180", lambda value: 0 <= value <= 180, ("augment.rotation_deg",)),
    ("0 to 255", lambda value: 0 <= value <= 255, ("augment.noise", "pretrain.noise")),
    ("a multiple of 8", lambda value: value >= 8 and value % 8 == 0, ("pretrain.width",)),
)

STAGE: tuple[Range, ...] = (
    ("0 to 1", lambda value: 0 <= value <= 1, ("alpha",)),
    ("more than 0, and at most 1", lambda value: 0 < value <= 1, ("fraction",)),
    ("at least 1", lambda value: value >= 1, ("views", "seeds")),
)


def check_seeds(*seeds: int) -> None:
    """See whether a command line's seeds are ones that all that draw take.

    Raises:
        UsageError: names the first that is not.
    """
    for seed in seeds:
        if not 0 <= seed <= MOST_SEED:
            raise UsageError(f"A seed must be 0 to {MOST_SEED}, not {seed}.")


def check(settings: object, ranges: Sequence[Range]) -> None:
    """See whether the numbers of a dataclass, and of those in it, are in their ranges.

    Args:
        settings: a recipe, or a stage.
        ranges: of its keys; "optimizer.ema" is of a dataclass in it.

    Raises:
        ConfigError: names the first that is not.
    """
    for words, fits, keys in ranges:
        for key in keys:
            if not fits(value := attrgetter(key)(settings)):
                raise ConfigError(f"{key} must be {words}, not {value}.")


def check_table(name: str, table: Mapping[str, object]) -> None:
    """See whether all values of a table are numbers, 0 or more.

    Args:
        name: of the table, for messages.
        table: as TOML has it.

    Raises:
        ConfigError: names the first that is none.
    """
    for key, value in table.items():
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ConfigError(f"{name}.{key} must be a number, 0 or more, not {value!r}.")


def check_stages(stages: Sequence[Sequence[int]]) -> None:
    """See whether a network has stages, each of filters and a stride.

    Raises:
        ConfigError: it has not.
    """
    if not stages or any(len(stage) != 2 or min(stage) < 1 for stage in stages):
        raise ConfigError(f"model.stages must be [filters, stride] of each convolution, from 1 on, not {stages}.")
