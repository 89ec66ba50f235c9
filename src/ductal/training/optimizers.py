"""Optimizers of the stages: Keras's, with Adam's step as one operation a variable instead of about twenty.

A network such as EfficientNet has hundreds of small variables, so that the operations are what a step waits for, and
what the first step takes to build.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from ductal.training.recipe import Stage

NOT_DECAYED = ["bias", "beta", "gamma"]  # as usual, weight decay is for kernels


class _Fused:
    """The step of Keras's Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019) as TensorFlow's own kernel."""

    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable, float32, and its two moments."""
        index = self._get_variable_index(variable)
        if index == 0:  # the same for all variables of a step, and this is the first
            step = tf.cast(self.iterations + 1, tf.float32)
            self._powers = tf.pow(self.beta_1, step), tf.pow(self.beta_2, step), tf.cast(learning_rate, tf.float32)
        beta1_power, beta2_power, rate = self._powers
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle, m=self._momentums[index].value.handle, v=self._velocities[index].value.handle,
            beta1_power=beta1_power, beta2_power=beta2_power, lr=rate,
            beta1=self.beta_1, beta2=self.beta_2, epsilon=self.epsilon, grad=tf.cast(gradient, tf.float32),
        )  # fmt: skip


class FusedAdam(_Fused, keras.optimizers.Adam):
    """`keras.optimizers.Adam`, the same to rounding."""


class FusedAdamW(_Fused, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW`, the same to rounding."""


def make_optimizer(stage: Stage, *, fused: bool = True) -> keras.optimizers.Optimizer:
    """The optimizer that `stage` asks for; weight decay spares biases and normalisation.

    `fused` ones update variables of one device; without, they are Keras's own.
    """
    if stage.optimizer == "sgd":
        return keras.optimizers.SGD(stage.learning_rate, momentum=0.9, nesterov=True)
    adam, adamw = (FusedAdam, FusedAdamW) if fused else (keras.optimizers.Adam, keras.optimizers.AdamW)
    if stage.optimizer == "adam":
        return adam(stage.learning_rate)
    optimizer = adamw(stage.learning_rate, weight_decay=stage.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer
