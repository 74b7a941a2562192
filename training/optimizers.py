"""How the weights step: AdamW, or Muon on the kernels of the convolutions."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from training.recipe import OptimizerRecipe

UNDECAYED = ["bias", "gamma", "beta", "centers", "thresholds", "leaves"]
"""Names of the variables that weight decay leaves alone."""


@keras.saving.register_keras_serializable("edge_fer")
class ConvMuon(keras.optimizers.Muon):
    """Muon on the kernels of the convolutions, AdamW on all else, both with one learning rate.

    A kernel (height, width, in, out) is stepped as the matrix (height * width * in, out). The stem, which has one
    channel, and depthwise kernels are no such matrices.

    Sources: Jordan et al. 2024, kellerjordan.github.io/posts/muon; its scale, by which it goes with AdamW's learning
    rate and weight decay, is that of Liu et al., arXiv 2502.16982, section 2.2.
    """

    def _should_use_adamw(self, variable: Any) -> bool:
        # A depthwise kernel has the shape (height, width, channels, 1).
        return len(variable.shape) != 4 or 1 in variable.shape[2:]

    def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
        self.assign_add(m, ops.add(gradient, m * (self.momentum - 1)))
        step = ops.add(gradient, self.momentum * m) if self.nesterov else m
        matrix = ops.reshape(step, (-1, step.shape[-1]))
        update = self.lr_adjust(self.zeropower_via_newtonschulz5(matrix, self.ns_steps))
        self.assign_sub(variable, ops.cast(lr, variable.dtype) * ops.reshape(update, variable.shape))


def make(recipe: OptimizerRecipe, epochs: int, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The recipe's optimizer, with a linear warm-up and a cosine down to zero over ``epochs``."""
    warmup = recipe.warmup_epochs * steps_per_epoch
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=epochs * steps_per_epoch - warmup,
        warmup_target=recipe.learning_rate,
        warmup_steps=warmup,
    )
    decay = recipe.weight_decay
    optimizer: keras.optimizers.Optimizer
    if recipe.kind == "muon":
        optimizer = ConvMuon(schedule, weight_decay=decay, adam_weight_decay=decay, adam_lr_ratio=1.0)
    else:
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=decay)
    optimizer.exclude_from_weight_decay(var_names=UNDECAYED)
    return optimizer
