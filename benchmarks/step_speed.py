"""Training steps of whole networks: ductal against plain Keras, against native PyTorch, against the matrix peak.

    python benchmarks/step_speed.py vgg16-full [--rounds N] [--pytorch PYTHON]

All layers train, on one batch of random patches that is used again and again, so that only the step is timed.
"keras" is the same network as the usual notebook compiles it: float32, Keras's Adam and layers, batches of 32 at
50 px and of 16 above. "pytorch" is torchvision's network, channels last, in the precision that ductal chose and in
float32; PYTHON is an interpreter that has torch and torchvision (ductal needs neither). Each runs in a process of its
own, in turn, N times; the figures are medians, in images/s. The peak is that of a product of two 2048 x 2048
matrices, and the share of it counts the multiplications of convolutions and dense layers, three times the forward
pass.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEPS, WARM = 12, 4
TORCH_NAMES = {"VGG16": "vgg16", **{f"EfficientNetB{n}": f"efficientnet_b{n}" for n in range(8)}}


def median_seconds(work: Callable[[], object], times: int = STEPS) -> float:
    """Median time of `work` after a few calls that are not timed."""
    for _ in range(WARM):
        work()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[len(seconds) // 2]


def keras_steps(recipe_name: str, plain: bool) -> dict[str, Any]:
    """ductal's steps, or those of the usual notebook."""
    from ductal.console import quiet_tensorflow

    quiet_tensorflow()
    import keras
    import numpy as np

    from ductal.training.callbacks import count_metrics
    from ductal.training.fast_layers import make_fast
    from ductal.training.network import Normalisation, build_network, set_trainable
    from ductal.training.optimizers import make_optimizer
    from ductal.training.precision import choose_precision
    from ductal.training.recipe_file import load_recipe

    recipe = load_recipe(recipe_name).model_copy(update={"weights": "random"})  # cost the same as ImageNet's
    stage = next(stage for stage in recipe.stages if stage.unfreeze == "all")
    precision = "float32" if plain else choose_precision(recipe).precision
    batch = (32 if recipe.input_px <= 50 else 16) if plain else recipe.batch_size
    recipe = recipe.model_copy(update={"precision": precision})
    network = build_network(recipe, Normalisation((180.0, 150.0, 170.0), (50.0, 50.0, 50.0)))
    set_trainable(network, stage, recipe)
    if plain:
        network.model.compile(keras.optimizers.Adam(1e-4), "binary_crossentropy", metrics=["accuracy"])
    else:
        make_fast(network.model)
        network.model.compile(
            make_optimizer(stage), "binary_crossentropy", metrics=count_metrics(), jit_compile=False
        )
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (batch, 50, 50, 3), dtype=np.uint8)
    y = rng.integers(0, 2, (batch, 1)).astype(np.float32)
    seconds = median_seconds(lambda: network.model.train_on_batch(x, y))
    return {
        "images_per_second": batch / seconds, "precision": precision, "batch": batch, "px": recipe.input_px,
        "backbone": recipe.backbone, "gflop": 3 * forward_gflop(network.model), "peak_gflops": matrix_peak(precision),
    }  # fmt: skip


def forward_gflop(model: Any) -> float:
    """Multiplications and additions of convolutions and dense layers for one image, in 1e9."""
    import keras
    import numpy as np

    total = 0
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            total += 2 * int(np.prod(layer.kernel.shape)) * int(np.prod(layer.output.shape[1:-1]))
        elif isinstance(layer, keras.layers.DepthwiseConv2D):
            total += 2 * int(np.prod(layer.kernel.shape)) * int(np.prod(layer.output.shape[1:3]))
    return total / 1e9


def matrix_peak(precision: str) -> float:
    """Speed of a large matrix product, in GFLOP/s."""
    import tensorflow as tf

    side = 2048
    dtype = tf.float32 if precision == "float32" else tf.as_dtype(precision.removeprefix("mixed_"))
    a, b = (tf.cast(tf.random.normal((side, side)), dtype) for _ in range(2))
    product = tf.function(lambda: tf.reduce_max(tf.matmul(a, b)))
    return 2 * side**3 / median_seconds(lambda: product().numpy()) / 1e9


def pytorch_steps(backbone: str, px: int, batch: int, precision: str) -> dict[str, Any]:
    """torchvision's network with AdamW, channels last."""
    import torch
    import torchvision

    model = getattr(torchvision.models, TORCH_NAMES[backbone])(weights=None)
    if backbone == "VGG16":  # with the head of the recipe, not the 120 million weights of the original
        model = torch.nn.Sequential(
            model.features, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(512, 1)
        )
    else:
        model.classifier = torch.nn.Linear(model.classifier[-1].in_features, 1)
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    x = torch.randn(batch, 3, px, px).to(memory_format=torch.channels_last)
    y = torch.rand(batch, 1).round()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != "float32"):
            logits = model(x)
        torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), y).backward()
        optimizer.step()

    return {"images_per_second": batch / median_seconds(step), "precision": precision, "batch": batch}


def run_one(python: str, *arguments: str) -> dict[str, Any]:
    """This script in another process, for one figure."""
    done = subprocess.run([python, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(recipe: str, rounds: int, pytorch: Path | None) -> dict[str, Any]:
    """Medians of `rounds` runs of each, taken in turn, and their ratios."""
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for kind in ("keras", "ductal"):
            found.setdefault(kind, []).append(run_one(sys.executable, recipe, "--one", kind))
        ours = found["ductal"][-1]
        for precision in dict.fromkeys((ours["precision"], "float32")) if pytorch else ():
            given = [ours["backbone"], ours["px"], ours["batch"], precision]
            one = run_one(str(pytorch), recipe, "--one", "pytorch", "--torch", json.dumps(given))
            found.setdefault(f"pytorch {precision}", []).append(one)

    def median(kind: str, name: str) -> float:
        return sorted(float(one[name]) for one in found[kind])[len(found[kind]) // 2]

    speed = {kind: median(kind, "images_per_second") for kind in found}
    reached = speed["ductal"] * median("ductal", "gflop")
    return {
        "recipe": recipe,
        "images_per_second": {kind: round(value, 1) for kind, value in speed.items()},
        "batch": {kind: ones[0]["batch"] for kind, ones in found.items()},
        "precision": found["ductal"][0]["precision"],
        "ratio": {kind: round(speed["ductal"] / value, 2) for kind, value in speed.items() if kind != "ductal"},
        "gflops": round(reached),
        "peak_gflops": round(median("ductal", "peak_gflops")),
        "share_of_peak": round(reached / median("ductal", "peak_gflops"), 2),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pytorch", type=Path, help="an interpreter that has torch and torchvision")
    parser.add_argument("--one", choices=("keras", "ductal", "pytorch"), help=argparse.SUPPRESS)
    parser.add_argument("--torch", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one == "pytorch":
        print(json.dumps(pytorch_steps(*options.torch)))
    elif options.one:
        print(json.dumps(keras_steps(options.recipe, plain=options.one == "keras")))
    else:
        print(json.dumps(compare(options.recipe, options.rounds, options.pytorch)), flush=True)


if __name__ == "__main__":
    main()
