"""Attention on channels, then on places: CBAM."""

from __future__ import annotations

import keras
from keras import layers, ops


def cbam(x: keras.KerasTensor, reduction: int) -> keras.KerasTensor:
    """Convolutional block attention module: channels are scaled by what, then places by where (Woo et al., ECCV 2018).

    Channel attention (eq. 2) is the sigmoid of one shared perceptron on the average and on the maximum of each channel,
    spatial attention (eq. 3) that of a 7x7 convolution over average and maximum of each place.

    Args:
        x: (batch, height, width, channels).
        reduction: channels for one unit of the perceptron's hidden layer.
    """
    channels = x.shape[-1]
    hidden = layers.Conv2D(max(4, channels // reduction), 1, activation="relu")
    out = layers.Conv2D(channels, 1)
    pools = (layers.GlobalAveragePooling2D(keepdims=True), layers.GlobalMaxPooling2D(keepdims=True))
    channel = layers.Activation("sigmoid")(layers.Add()([out(hidden(pool(x))) for pool in pools]))
    x = layers.Multiply()([x, channel])
    places = layers.Concatenate()([ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)])
    spatial = layers.Conv2D(1, 7, padding="same", activation="sigmoid")(places)
    return layers.Multiply()([x, spatial])
