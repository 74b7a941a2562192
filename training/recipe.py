"""A training recipe: all that decides how a model is trained, in a TOML file. ``stages`` reads those of several."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edge_fer.errors import ConfigError, InputMissingError
from edge_fer.preprocess.alignment import Alignment
from edge_fer.preprocess.illumination import Illumination
from edge_fer.strict import from_table, read_toml
from training.ranges import RECIPE, check, check_stages, check_table

Precision = Literal["float32", "bfloat16"]
Distribution = Literal["none", "data"]
InputKind = Literal["gray", "lbp", "gradient", "edges", "equalized", "eyes", "mouth"]
"""See ``inputs.Channel``."""


@dataclass(frozen=True)
class DataRecipe:
    """Which samples are used.

    Attributes:
        exclude: CSV in the data folder with samples to leave out (see ``datasets.load``); "" for none.
        alignment: how faces are turned and placed before, as the device then does it, see ``preprocess.Preprocessor``.
            "two-points" and "five-points" want ``landmarks.npz`` in the data folder (``datasets.landmarks_file``).
        illumination: what is done to the light of faces before, and on the device, in this order.
        further: folder in the data folder with more labeled faces to learn from (see ``datasets.load``); "" for none.
        further_times: how often each of them stands in an epoch: they are few, as a rule.
        further_alone: learn from them alone, and not from Training: the last stage of a fine-tuning.
        unlabeled: folder in the data folder with photos and a table of the faces in them (``datasets.photos``), which
            are learned by what the teacher says of them where it is sure: self-training. "" for none.
    """

    exclude: str = "also_in_privatetest.csv"
    alignment: Alignment = "none"
    illumination: tuple[Illumination, ...] = ()
    further: str = ""
    further_times: int = 1
    further_alone: bool = False
    unlabeled: str = ""


@dataclass(frozen=True)
class ModelRecipe:
    """The network: ``models.build_plain``, ``build_separable`` or ``build_residual``.

    Attributes:
        stages: [filters, stride] of each convolution.
        dropout: rate before the dense layer.
        kind: "plain", "separable" or "residual".
        repvgg: train each 3x3 convolution as a ``models.RepVGGBlock``; not for "separable".
        squeeze_excitation: reduction of ``models.squeeze_excitation`` behind each convolution, 0 for none; not for
            "separable".
        attention: "cbam" for ``attention.cbam``; only for "residual", as what follows.
        inputs: what the network sees, kinds of ``inputs.Channel``.
        fusion: how several inputs are joined: "early" or "late".
        forest: trees of a ``forest.NeuralForest`` in place of the dense layer, 0 for none.
        scoring: supervised blocks whose scores the last layer reads, see ``scoring.with_scoring``; () for none.
    """

    stages: list[list[int]]
    dropout: float = 0.2
    kind: Literal["plain", "separable", "residual"] = "plain"
    repvgg: bool = False
    squeeze_excitation: int = 0
    attention: Literal["none", "cbam"] = "none"
    inputs: tuple[InputKind, ...] = ("gray",)
    fusion: Literal["early", "late"] = "early"
    forest: int = 0
    scoring: tuple[Literal["shallow", "intermediate", "deep"], ...] = ()


@dataclass(frozen=True)
class AugmentRecipe:
    """How images are augmented in training, see ``augmentation.Augment``."""

    rotation_deg: float = 15.0
    scale: float = 0.15
    shift: float = 0.08
    brightness: float = 0.15
    contrast: float = 0.3
    cutout_px: int = 0
    noise: float = 0.0
    blur: float = 0.0
    edges: float = 0.0


@dataclass(frozen=True)
class OptimizerRecipe:
    """AdamW with a linear warm-up and a cosine down to zero (Loshchilov & Hutter, arXiv 1711.05101, 1608.03983).

    Attributes:
        kind: "adamw", or "muon" for ``optimizers.ConvMuon``.
        learning_rate: at the top of the schedule.
        weight_decay: decoupled; not on biases and batch-norm parameters.
        warmup_epochs: epochs from zero to the top.
        ema: decay of an exponential moving average of the weights, which is then what is measured and exported; 0 for
            none.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup_epochs: int = 2
    ema: float = 0.0


@dataclass(frozen=True)
class DistillRecipe:
    """Knowledge distillation, see ``tasks.Distillation``; the teacher comes with ``--teacher-logits`` or ``--teacher``.

    Attributes:
        weight: of the soft targets in the loss, 0-1; 0 for training without a teacher.
        temperature: by which student and teacher are softened.
    """

    weight: float = 0.0
    temperature: float = 3.0


@dataclass(frozen=True)
class ClassBalanceRecipe:
    """What is done for rare classes, on both heads, see ``tasks.class_balance``.

    Attributes:
        kind: "none", "effective_number" or "logit_adjustment".
        beta: of the effective number, 0 to less than 1; 0 weighs all classes alike.
        tau: how much of the logarithm of the class priors is added; 1 is what the theory says.
    """

    kind: Literal["none", "effective_number", "logit_adjustment"] = "none"
    beta: float = 0.999
    tau: float = 1.0


@dataclass(frozen=True)
class PretrainRecipe:
    """Training without labels, see ``pretrain``: only ``python -m training pretrain`` reads it.

    Attributes:
        kind: "masked", "convolutional", "denoising", "contractive", "face-features" or "gan".
        epochs: passes over the Training samples.
        mask: fraction of the image that is masked.
        patch_px: side of a masked patch.
        noise: sigma of the Gaussian noise that is to be taken away, in gray levels.
        contraction: weight of the Jacobian's squared norm beside the reconstruction error, for "contractive".
        width: filters of the first convolution of the discriminator, and of the last of the generator, for "gan".
    """

    kind: Literal["masked", "convolutional", "denoising", "contractive", "face-features", "gan"] = "masked"
    epochs: int = 20
    mask: float = 0.5
    patch_px: int = 8
    noise: float = 10.0
    contraction: float = 0.1
    width: int = 64


@dataclass(frozen=True)
class Recipe:
    """One training.

    Attributes:
        name: of the run and of the model.
        seed: of weights, order and augmentation.
        epochs: passes over the Training samples.
        batch_size: images in a step.
        label_smoothing: on labels of one rater (Szegedy et al., arXiv 1512.00567); votes are soft already.
        task_weights: of the loss of a head, by its name; 1 where it is not named.
        mixup: alpha of ``augmentation.Mixup``, off in the last tenth of the epochs; 0 for none.
        center: weight of the center loss, see ``tasks.CenterLoss``; 0 for none. Its authors': 0.01.
        island: weight of the island loss's pairs inside the center loss. Its authors': 10.
        auxiliary_heads: weight of each head at the end of an earlier stage (deep supervision), see
            ``models.with_extras``; 0 for none.
        fixed_statistics: keep the means and variances of batch normalization that ``--init-from`` has, see
            ``fixed_statistics.FixedStatistics``.
        consistency: weight of ``tasks.Consistency``, for which the network sees each image corrupted too; 0 for none. A
            step then takes twice the time.
        distribution: "data" trains on all devices of this machine, and of all processes that were started together, see
            ``distributed``; it wants Keras on JAX. "none" is one device.
        locality: weight of ``locality.LocalityPreserving``; 0 for none. Its authors': 0.003.
        contrastive: weight of ``contrastive.Contrastive``; 0 for none.
        tuplets: weight of ``tuplets.TupletClusters``, for data with subjects; 0 for none.
        identity: weight of ``contrastive.IdentityContrastive``, likewise.
        classification: "softmax" for cross entropy, or "l2_svm" for ``hinge.SquaredHinge``.
        precision: what the network calculates in while it trains. "bfloat16" is faster on processors and GPUs that have
            it, and much slower on others (Micikevicius et al., arXiv 1710.03740). The trained model is float32.
        model: the network.
        data: the samples.
        augment: the augmentation.
        optimizer: the steps.
        distill: the teacher.
        class_balance: the rare classes.
        pretrain: training without labels, before.
    """

    name: str
    model: ModelRecipe
    seed: int = 1
    epochs: int = 40
    batch_size: int = 128
    label_smoothing: float = 0.1
    mixup: float = 0.0
    center: float = 0.0
    island: float = 0.0
    auxiliary_heads: float = 0.0
    fixed_statistics: bool = False
    consistency: float = 0.0
    distribution: Distribution = "none"
    locality: float = 0.0
    contrastive: float = 0.0
    tuplets: float = 0.0
    identity: float = 0.0
    classification: Literal["softmax", "l2_svm"] = "softmax"
    precision: Precision = "float32"
    task_weights: Mapping[str, float] = field(default_factory=dict)
    data: DataRecipe = DataRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    distill: DistillRecipe = DistillRecipe()
    class_balance: ClassBalanceRecipe = ClassBalanceRecipe()
    pretrain: PretrainRecipe = PretrainRecipe()

    def __post_init__(self) -> None:
        check(self, RECIPE)
        check_stages(self.model.stages)
        check_table("task_weights", self.task_weights)
        if self.epochs <= self.optimizer.warmup_epochs:
            raise ConfigError(f"epochs ({self.epochs}) must be more than warmup_epochs, or nothing is trained.")
        if self.data.further_alone and (not self.data.further or self.distill.weight):
            raise ConfigError("data.further_alone wants data.further, and no teacher: it is about labels alone.")
        if self.island and not self.center:
            raise ConfigError("island is a part of the center loss: give center a weight too.")
        if self.classification == "l2_svm" and self.model.forest:
            raise ConfigError(
                "l2_svm wants margins, and model.forest gives logarithms of probabilities: leave one out."
            )
        if self.classification == "l2_svm" and self.class_balance.kind == "logit_adjustment":
            raise ConfigError("logit_adjustment is for softmax: give l2_svm class_balance.kind = 'effective_number'.")
        if self.model.scoring and not self.auxiliary_heads:
            raise ConfigError("model.scoring has blocks that are supervised: give auxiliary_heads, their weight, too.")
        if self.model.repvgg and self.model.kind == "separable":
            raise ConfigError("model.repvgg is for plain and residual networks: a separable one has no 3x3 to split.")
        if self.model.squeeze_excitation and self.model.kind == "separable":
            raise ConfigError("model.squeeze_excitation is for plain and residual networks, not for separable ones.")
        for key in ("attention", "inputs", "fusion", "forest"):
            if self.model.kind != "residual" and getattr(self.model, key) != getattr(ModelRecipe, key):
                raise ConfigError(f"model.{key} is for residual networks, not for {self.model.kind} ones.")
        if not self.model.inputs:
            raise ConfigError("model.inputs is empty: the network must see something.")
        if self.model.repvgg and self.fixed_statistics:
            raise ConfigError("fixed_statistics is for networks without model.repvgg, whose branches have their own.")


def read_table(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """The table of a recipe file, with some values changed.

    Where it says ``base = "base.toml"``, it holds only what differs from that file beside it.

    Args:
        path: TOML.
        changes: see ``change``.

    Raises:
        InputMissingError: no such file.
        ConfigError: not TOML, or a change that is none.
    """
    table = _parsed(path)
    if (base := table.pop("base", None)) is not None:
        shared = _parsed(path.parent / base) if isinstance(base, str) else {"base": base}
        if "base" in shared:
            raise ConfigError(f"{path}: base must be the name of a file beside it that has none itself, not {base!r}.")
        table = merged(shared, table)
    for one in changes:
        change(table, one)
    return table


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except FileNotFoundError:
        raise InputMissingError(f"No recipe {path}; those of the project are in training/recipes.") from None


def change(table: dict[str, Any], text: str) -> None:
    """Change a recipe's table.

    Args:
        table: is changed.
        text: "seed=2", "optimizer.learning_rate=0.01": a value as in TOML, or else a string.

    Raises:
        ConfigError: it is no such text.
    """
    key, equals, value = text.partition("=")
    *outer, inner = key.strip().split(".")
    if not equals or not inner or len(outer) > 1:
        raise ConfigError(f"--set {text!r}: write KEY=VALUE, as in seed=2 or model.dropout=0.1.")
    place = table.setdefault(outer[0], {}) if outer else table
    if not isinstance(place, dict):
        raise ConfigError(f"--set {text!r}: {outer[0]} is no table.")
    try:
        place[inner] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        place[inner] = value


def merged(table: Mapping[str, Any], differing: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's table with the values of another over its own, key by key in the tables inside too."""
    both = {key: dict(value) if isinstance(value, dict) else value for key, value in table.items()}
    for key, value in differing.items():
        inner = both.get(key)
        both[key] = {**inner, **value} if isinstance(inner, dict) and isinstance(value, dict) else value
    return both


def to_toml(table: dict[str, Any]) -> str:
    """A recipe's table as TOML; its values look the same in JSON."""
    tables = {key: value for key, value in table.items() if isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items() if key not in tables]
    for name, inner in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in inner.items())]
    return "\n".join(lines) + "\n"


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe; an unknown key is an error that suggests the near one.

    Args:
        path: TOML.
        changes: see ``read_table``.

    Raises:
        InputMissingError: no such file.
        ConfigError: not TOML, an unknown key, a value of the wrong type, or stages.
    """
    table = read_table(path, changes)
    if "stage" in table:
        raise ConfigError(f"{path} has several stages: `python -m training run` walks them.")
    return from_table(Recipe, table, str(path))
