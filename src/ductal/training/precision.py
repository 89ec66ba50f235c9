"""`precision = "auto"`: a few timed steps decide whether a backbone trains in float32 or in 16 bits on this machine.

bfloat16 makes VGG16 clearly faster on a CPU with AVX512-BF16 or AMX, and EfficientNet (depthwise
convolutions) slower on the very same one; without such instructions it is slower throughout. So it is measured.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

from ductal.errors import StorageError
from ductal.files import write_text
from ductal.machine import cache_folder, cpu
from ductal.training.backbones import build_base
from ductal.training.fast_layers import make_fast
from ductal.training.network import layers_in
from ductal.training.recipe import Recipe

WORTH = 1.1  # float32 is left only for something clearly faster
PROBE_BATCH = 32
_PROBE_PIXELS = PROBE_BATCH * 96 * 96  # larger inputs are timed in smaller batches, so that memory stays small
_STEPS = 3
_PROBE = 2  # changes where what is timed changes: older timings in the cache then count no more


@dataclass(frozen=True)
class Choice:
    """A precision and the measurement behind it.

    Attributes:
        precision: name of the Keras dtype policy.
        xla: `jit_compile` of Keras: whether steps are compiled with XLA (never on a CPU, where it is several
            times slower).
        images_per_second: of each candidate, training steps on random patches; empty where nothing was timed.
        reason: "recipe", "probe", "probe, cached" or "deterministic".
    """

    precision: str
    xla: bool | Literal["auto"]
    images_per_second: dict[str, float]
    reason: str

    @property
    def label(self) -> str:
        """How `images_per_second` names it."""
        return _label(self.precision, self.xla is True)


def choose_precision(recipe: Recipe, *, deterministic: bool = False) -> Choice:
    """What to train `recipe` in; timed once per backbone, input size, device and version, then read from a cache.

    A deterministic training takes what the recipe names, else float32, and no XLA: what a clock has chosen could be
    another thing the next time.

    The cache is `precision.json` in `$DUCTAL_CACHE`, else in `$XDG_CACHE_HOME/ductal`, else in `~/.cache/ductal`;
    delete it to measure again. Where it cannot be written, each training measures. The head of an ONNX encoder trains
    in float32: there is nothing in it to gain.
    """
    if deterministic:
        named = "float32" if recipe.precision == "auto" or recipe.encoder is not None else recipe.precision
        return Choice(named, False, {}, "deterministic")
    if recipe.precision != "auto" or recipe.encoder is not None:
        gpu = bool(tf.config.list_physical_devices("GPU"))
        precision = "float32" if recipe.encoder is not None else recipe.precision
        return Choice(precision, "auto" if gpu else False, {}, "recipe")
    key = _key(recipe)
    known = _read_cache()
    if key in known:
        return Choice(**(known[key] | {"reason": "probe, cached"}))
    speeds = {_label(*item): _speed_or_zero(recipe, *item) for item in _candidates()}
    choice = _best(speeds)
    with suppress(StorageError, OSError, RuntimeError):  # no home, no room: the next training measures again
        write_text(cache_file(), json.dumps(known | {key: asdict(choice)}, indent=1))
    return choice


def _best(speeds: dict[str, float]) -> Choice:
    plain = _label("float32", False)
    fastest = max(speeds, key=lambda label: speeds[label])
    chosen = fastest if speeds[fastest] > WORTH * speeds[plain] else plain
    precision, _, xla = chosen.partition(" ")
    return Choice(precision, bool(xla), {label: round(speed, 1) for label, speed in speeds.items()}, "probe")


def _candidates() -> list[tuple[str, bool]]:
    """(precision, XLA) worth timing on this machine."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return [("float32", False), ("mixed_bfloat16", False)]
    capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
    half = "mixed_bfloat16" if tuple(capability) >= (8, 0) else "mixed_float16"
    return [(precision, xla) for precision in ("float32", half) for xla in (False, True)]


def _label(precision: str, xla: bool) -> str:
    return f"{precision} xla" if xla else precision


def _speed_or_zero(recipe: Recipe, precision: str, xla: bool) -> float:
    """0 for what this device cannot do (XLA without its compiler, too little memory): it is not chosen, no more."""
    try:
        return _images_per_second(recipe, precision, xla)
    except tf.errors.OpError:
        return 0.0


def _images_per_second(recipe: Recipe, precision: str, xla: bool) -> float:
    """Speed of forward and backward pass of the bare backbone, all layers, after a first one that is not timed.

    Without the optimizer, which works in float32 in any case and would take most of the time to build.
    """
    shape = (recipe.input_px, recipe.input_px, 3)
    with layers_in(precision):
        base = build_base(recipe.backbone, input_shape=shape, pooling="avg")
    make_fast(base)
    weights = [weight.value for weight in base.trainable_weights]

    @tf.function(jit_compile=xla)
    def gradients(patches: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.cast(base(patches, training=True), tf.float32))
        return tf.reduce_sum([tf.reduce_sum(gradient) for gradient in tape.gradient(loss, weights)])

    batch = max(2, min(PROBE_BATCH, _PROBE_PIXELS // recipe.input_px**2))
    patches = tf.random.stateless_uniform((batch, *shape), (0, 0), maxval=255.0)
    gradients(patches).numpy()  # waits for the device
    seconds = []
    for _ in range(_STEPS):
        started = time.perf_counter()
        gradients(patches).numpy()
        seconds.append(time.perf_counter() - started)
    return batch / min(seconds)  # the least disturbed by other work on the machine


def _key(recipe: Recipe) -> str:
    gpus = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    device = details.get("device_name") or str(cpu())
    settings = [f"{name}={os.environ.get(name, '')}" for name in ("TF_ENABLE_ONEDNN_OPTS", "OMP_NUM_THREADS")]
    versions = f"TensorFlow {tf.__version__}, Keras {keras.__version__}"
    return ", ".join([f"{recipe.backbone} {recipe.input_px}px, probe {_PROBE}", device, versions, *settings])


def cache_file() -> Path:
    """Where choices are kept."""
    return cache_folder() / "precision.json"


def _read_cache() -> dict[str, Any]:
    try:
        known = json.loads(cache_file().read_text(encoding="utf-8"))
        return {key: item for key, item in known.items() if set(item) == set(Choice.__dataclass_fields__)}
    except (OSError, ValueError, AttributeError, TypeError, RuntimeError):  # none yet, not ours, no home
        return {}
