"""`ductal doctor`: what this machine offers, how fast each recipe trains on it, and what would make it faster."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from ductal.console import quiet_tensorflow
from ductal.inference.engines import has_gpu, is_installed
from ductal.machine import Cpu, available_cores, cpu, memory_bytes
from ductal.training.precision import Choice, choose_precision
from ductal.training.recipe import DEFAULT_RECIPES, Recipe
from ductal.training.recipe_file import load_recipe
from ductal.training.weights import weights_at_hand

SMALL_MEMORY = 6 * 1024**3


@dataclass(frozen=True)
class Speed:
    """What the timed probe says of one recipe: forward and backward pass of its backbone, all layers trained."""

    recipe: Recipe
    choice: Choice

    @property
    def images_per_second(self) -> float:
        """In the precision that was chosen; nan where the recipe names it, so that nothing was timed."""
        return self.choice.images_per_second.get(self.choice.label, float("nan"))


@dataclass(frozen=True)
class Diagnosis:
    """Facts about the machine, speeds of the recipes, and what to change."""

    facts: dict[str, str]
    speeds: list[Speed]
    advice: list[str]


def examine(progress: Callable[[int, int], None] | None = None) -> Diagnosis:
    """Examine this machine; the first time on it this times every backbone, which takes a minute or two.

    Args:
        progress: called with (recipes timed, recipes in all).
    """
    quiet_tensorflow()
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    speeds = []
    for number, name in enumerate(DEFAULT_RECIPES, start=1):
        recipe = load_recipe(name)
        speeds.append(Speed(recipe, choose_precision(recipe)))
        if progress:
            progress(number, len(DEFAULT_RECIPES))
    processor, memory = cpu(), memory_bytes()
    facts = {
        "Processor": str(processor),
        "Memory": "unknown" if memory is None else f"{memory / 1024**3:.0f} GiB",
        "Free disk here": f"{shutil.disk_usage('.').free / 1e9:.0f} GB",
        "GPU": ", ".join(_gpu_name(gpu) for gpu in gpus) or "none that TensorFlow can use",
        "TensorFlow": tf.__version__,
        "Keras": metadata.version("keras"),
        "OpenVINO": metadata.version("openvino") if is_installed() else "not installed",
        "Engine of `ductal predict`": "openvino" if is_installed() and not has_gpu() else "tensorflow",
        "ImageNet weights of VGG16": weights_at_hand("VGG16") or "to be downloaded",
    }
    return Diagnosis(facts, speeds, _advice(processor, memory, bool(gpus)))


def _gpu_name(gpu: object) -> str:
    import tensorflow as tf

    return str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu))


def _advice(processor: Cpu, memory: int | None, has_gpu: bool) -> list[str]:
    advice = []
    if not has_gpu and shutil.which("nvidia-smi"):
        advice.append("There is an NVIDIA driver, but TensorFlow uses no GPU: pip install 'tensorflow[and-cuda]'.")
    elif not has_gpu and not processor.has_bfloat16:
        advice.append(
            "This processor has no bfloat16 arithmetic (AVX512-BF16 or AMX). One that has trains VGG16 "
            "clearly faster, and a GPU everything."
        )
    if not has_gpu and not is_installed():
        advice.append("Predictions run faster with OpenVINO: pip install 'ductal[openvino]'.")
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        advice.append("TF_ENABLE_ONEDNN_OPTS=0 turns oneDNN off, which makes training much slower. Unset it.")
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) < available_cores():
        advice.append(f"OMP_NUM_THREADS={threads} keeps cores idle. Unset it, unless the machine is shared.")
    if memory is not None and memory < SMALL_MEMORY:
        advice.append("Little memory: if a training is killed, halve batch_size in a recipe of your own.")
    return advice
