"""A training recipe: all that decides how a model is trained, in one TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_fer.config import from_table
from edge_fer.errors import ConfigError, InputMissingError


@dataclass(frozen=True)
class DataRecipe:
    """Which rows are used.

    Attributes:
        exclude: CSV in the data folder with rows to leave out (see ``datasets.load``); "" for none.
    """

    exclude: str = "also_in_privatetest.csv"


@dataclass(frozen=True)
class ModelRecipe:
    """The network: ``models.build_plain``, ``build_separable`` or ``build_residual``.

    Attributes:
        stages: [filters, stride] of each convolution.
        dropout: rate before the dense layer.
        kind: "plain", "separable" or "residual".
    """

    stages: list[list[int]]
    dropout: float = 0.2
    kind: Literal["plain", "separable", "residual"] = "plain"


@dataclass(frozen=True)
class AugmentRecipe:
    """How pictures are changed in training, see ``augmentation.Augment``."""

    rotation_deg: float = 15.0
    scale: float = 0.15
    shift: float = 0.08
    brightness: float = 0.15
    contrast: float = 0.3
    cutout_px: int = 0
    noise: float = 0.0
    blur: float = 0.0


@dataclass(frozen=True)
class OptimizerRecipe:
    """AdamW with a linear warm-up and a cosine down to zero (Loshchilov & Hutter, arXiv 1711.05101, 1608.03983).

    Attributes:
        kind: "adamw", or "muon" for ``optimizers.ConvMuon``.
        learning_rate: at the top of the schedule.
        weight_decay: decoupled; not on biases and batch-norm parameters.
        warmup_epochs: epochs from zero to the top.
        average: decay of a moving average of the weights, which is then what is measured and exported; 0 for none.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup_epochs: int = 2
    average: float = 0.0


@dataclass(frozen=True)
class DistillRecipe:
    """How much a teacher counts, see ``losses.TwoHeadLoss``; its answers come with ``--cache``.

    Attributes:
        weight: share of the teacher in the loss, 0-1; 0 for training without one.
        temperature: by which both are softened.
    """

    weight: float = 0.0
    temperature: float = 3.0


@dataclass(frozen=True)
class Recipe:
    """One training.

    Attributes:
        name: of the run and of the model.
        seed: of weights, order and augmentation.
        epochs: passes over the Training rows.
        batch_size: pictures in a step.
        label_smoothing: on the FER2013 head (Szegedy et al., arXiv 1512.00567); FER+ votes are soft already.
        ferplus_weight: of the FER+ head's loss; the FER2013 head's is 1.
        model: the network.
        data: the rows.
        augment: the changes.
        optimizer: the steps.
        distill: the teacher.
    """

    name: str
    model: ModelRecipe
    seed: int = 1
    epochs: int = 40
    batch_size: int = 128
    label_smoothing: float = 0.1
    ferplus_weight: float = 1.0
    data: DataRecipe = DataRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    distill: DistillRecipe = DistillRecipe()

    def __post_init__(self) -> None:
        if self.epochs <= self.optimizer.warmup_epochs:
            raise ConfigError(f"epochs ({self.epochs}) must be more than warmup_epochs, or nothing is trained.")
        for key, value in (("distill.weight", self.distill.weight), ("optimizer.average", self.optimizer.average)):
            if not 0 <= value <= 1:
                raise ConfigError(f"{key} must be 0 to 1, not {value}.")


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; an unknown key is an error that suggests the near one.

    Raises:
        InputMissingError: no such file.
        ConfigError: not TOML, an unknown key, or a value of the wrong type.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputMissingError(f"No recipe {path}; those of the project are in training/recipes.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None
    return from_table(Recipe, table, str(path))
