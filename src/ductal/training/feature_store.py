"""Activations of frozen layers on K augmented views a patch: computed once, kept as memory maps, shared by recipes.

One file holds one view at one cut. Its name is a digest of everything its content depends on (the layers
before the cut and their weights, the patches, augmentation, seed and view), so a stale file cannot be used, and
a recipe finds what an earlier one with the same prefix has computed.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ductal.errors import RecipeError
from ductal.files import atomic_file
from ductal.training.augment import draws, make_augment
from ductal.training.feature_cache import CachedFeatures, plan_cuts
from ductal.training.feature_files import FilesInUse, delete_unused, new_map
from ductal.training.network import Network
from ductal.training.recipe import Recipe

BUDGET_BYTES = 20 * 1024**3
_FORWARD_PIXELS = 256 * 96 * 96  # of a batch: large enough to use the processor well, small enough for its memory
FIRST_VIEW = 1_000_000  # view numbers share the key space of epochs, far above any epoch


@dataclass(frozen=True)
class StageFeatures:
    """For each stage of a recipe its cut and its features, or None where it trains the whole network.

    `over_budget` names the stages that could have features, but for want of disk. Until `close` no other training
    deletes the files of these features.
    """

    stages: list[tuple[Any, CachedFeatures] | None]
    note: str
    over_budget: tuple[str, ...] = ()
    in_use: FilesInUse = field(default_factory=FilesInUse)

    def close(self) -> None:
        """When the training has ended."""
        self.in_use.close()


def prepare_features(
    network: Network,
    recipe: Recipe,
    pixels: np.ndarray,
    rows: dict[str, np.ndarray],
    *,
    folder: Path,
    seed: int,
    later: Sequence[Recipe] = (),
    deterministic: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> StageFeatures:
    """Compute what the stages of `recipe` can train on and `folder` does not hold yet.

    Where not all fits the disk budget (`BUDGET_BYTES`, and half of the free disk), files of other settings are
    deleted that no other training uses now, then the largest are left out, those of later recipes first; the stages
    concerned run the frozen layers in every epoch.

    Args:
        network: with the weights it starts from.
        pixels: uint8 (N, 50, 50, 3).
        rows: {"train": int64 (n,), "val": int64 (m,)}.
        folder: where the memory maps are; it may hold those of other recipes, and outlive the training.
        seed: of the augmentation.
        later: recipes whose needs are met in the same pass where they fit.
        deterministic: use no file that another kind of training has computed, maybe otherwise.
        progress: called with (images done, images in all).

    Raises:
        StorageError: the disk refused.
    """
    cuts = plan_cuts(network, recipe)
    if all(cut is None for cut in cuts):
        return StageFeatures([None] * len(cuts), "not used")
    store = _Store(folder, network, recipe, pixels, rows, seed, deterministic)
    own = {cut.name: _Need(cut, recipe.cached_views) for cut in cuts if cut is not None}
    needs = _fitting(store, own, _with_later(own, network, recipe, later))
    own = {name: need for name, need in own.items() if name in needs}
    computed = store.fill(needs, progress)
    made = {name: store.open(need) for name, need in own.items()}
    stages = [(cut, made[cut.name]) if cut is not None and cut.name in made else None for cut in cuts]
    left_out = [
        stage.name for stage, cut in zip(recipe.stages, cuts, strict=True) if cut is not None and cut.name not in made
    ]
    size = sum(store.bytes_of(need) for need in own.values())
    note = f"{recipe.cached_views} views of {len(rows['train'])} patches, {size / 1e6:.0f} MB, {computed} computed"
    if left_out:
        note += f"; not for {', '.join(left_out)}: over the disk budget"
    return StageFeatures(stages, note, tuple(left_out), store.in_use)


@dataclass(frozen=True)
class _Need:
    """The activations `tensor`, for views 0 to `views` - 1 of the training rows and for the validation rows."""

    tensor: Any
    views: int


def _with_later(
    own: dict[str, _Need], network: Network, recipe: Recipe, later: Sequence[Recipe]
) -> dict[str, _Need]:
    needs = dict(own)
    same = ("backbone", "encoder", "weights", "input_px", "augment", "precision")
    for other in later:
        if any(getattr(other, name) != getattr(recipe, name) for name in same):
            continue
        with suppress(RecipeError):  # said when its turn comes
            for cut in plan_cuts(network, other):
                if cut is not None:
                    known = needs.get(cut.name)
                    needs[cut.name] = _Need(cut, max(other.cached_views, known.views if known else 0))
    return needs


def _fitting(store: _Store, own: dict[str, _Need], wanted: dict[str, _Need]) -> dict[str, _Need]:
    """What of `wanted` fits: what nobody wants is deleted first, then the largest are given up, `own` last."""
    needs = dict(wanted)
    if not store.has_room(needs):
        store.delete_all_but(needs)
    while not store.has_room(needs):
        extra = [name for name, need in needs.items() if need != own.get(name)]
        missing = {name: store.missing_bytes(needs[name]) for name in extra or needs}
        largest = max(missing, key=lambda name: missing[name])
        if largest in extra and largest in own:
            needs[largest] = own[largest]
        else:
            del needs[largest]
    return needs


class _Store:
    def __init__(
        self,
        folder: Path,
        network: Network,
        recipe: Recipe,
        pixels: np.ndarray,
        rows: dict[str, np.ndarray],
        seed: int,
        deterministic: bool,
    ) -> None:
        self._folder, self._network, self._recipe = folder, network, recipe
        self._pixels, self._rows, self._seed, self._deterministic = pixels, rows, seed, deterministic
        self._patches = {part: _digest_patches(pixels, chosen) for part, chosen in rows.items()}
        self._prefixes: dict[str, str] = {}
        self._maps: dict[Path, np.ndarray] = {}
        self.in_use = FilesInUse()
        self._forwards: dict[tuple[str, ...], Callable[[Any], dict[str, Any]]] = {}

    def bytes_of(self, need: _Need) -> int:
        count = need.views * len(self._rows["train"]) + len(self._rows["val"])
        return math.prod(need.tensor.shape[1:]) * 2 * count

    def missing_bytes(self, need: _Need) -> int:
        """How much of it is still to be written."""
        one = math.prod(need.tensor.shape[1:]) * 2
        return sum(
            one * len(self._rows["val" if view is None else "train"])
            for view in _views(need)
            if not self._path(need, view).exists()
        )

    def has_room(self, needs: dict[str, _Need]) -> bool:
        """Whether what is missing fits beside what is there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        there = sum(file.stat().st_size for file in self._folder.glob("*.npy"))
        missing = sum(self.missing_bytes(need) for need in needs.values())
        free = shutil.disk_usage(self._folder).free
        return not missing or (there + missing <= BUDGET_BYTES and missing <= free // 2)

    def delete_all_but(self, needs: dict[str, _Need]) -> None:
        """Delete what other settings, seeds and augmentations have left, and nobody uses."""
        wanted = {self._path(need, view) for need in needs.values() for view in _views(need)}
        for file in set(self._folder.glob("*.npy")) - wanted:
            delete_unused(file)

    def open(self, need: _Need) -> CachedFeatures:
        """What `fill` has filled."""
        *train, val = (self._maps[self._path(need, view)] for view in _views(need))
        return CachedFeatures(tuple(train), val)

    def _is_mapped(self, need: _Need, view: int | None) -> bool:
        """Map a file if it is there; from then on nobody else deletes it."""
        path = self._path(need, view)
        if path not in self._maps and (found := self.in_use.map(path)) is not None:
            self._maps[path] = found
        return path in self._maps

    def fill(self, needs: dict[str, _Need], progress: Callable[[int, int], None] | None) -> int:
        """Run the frozen layers where a file is missing; returns the number of images that went through."""
        highest = max((need.views for need in needs.values()), default=0)
        todo: dict[int | None, dict[str, _Need]] = {}
        for view in (*range(highest), None):
            wanted = {name: need for name, need in needs.items() if view is None or view < need.views}
            todo[view] = {name: need for name, need in wanted.items() if not self._is_mapped(need, view)}
        total = sum(len(self._rows["val" if view is None else "train"]) for view, part in todo.items() if part)
        done = 0
        for view, part in todo.items():
            missing = part
            while missing:  # again where another has deleted it before it was mapped
                done = self._compute(missing, view, lambda count: progress(count, total) if progress else None, done)
                missing = {name: need for name, need in missing.items() if not self._is_mapped(need, view)}
        return total

    def _compute(
        self, needs: dict[str, _Need], view: int | None, tick: Callable[[int], None], done: int
    ) -> int:
        chosen = self._rows["val" if view is None else "train"]
        numbers = None if view is None else self._draws(view)
        forward = self._forward(needs)
        augment = make_augment(self._recipe.augment)
        size = max(8, min(256, _FORWARD_PIXELS // self._recipe.input_px**2))
        with ExitStack() as stack:
            maps = {}
            for name, need in needs.items():
                path = stack.enter_context(atomic_file(self._path(need, view)))
                shape = (len(chosen), *need.tensor.shape[1:])
                maps[name] = new_map(path, shape)
            for start in range(0, len(chosen), size):
                part = slice(start, start + size)
                patches = tf.constant(self._pixels[chosen[part]])
                if numbers is not None:
                    patches = augment(patches, tf.constant(numbers[part]))
                for name, values in forward(patches).items():
                    maps[name][part] = np.asarray(values)
                done += len(patches)
                tick(done)
            for target in maps.values():
                target.flush()
        return done

    def _draws(self, view: int) -> np.ndarray:
        return draws(self._seed, FIRST_VIEW + view, len(self._rows["train"]), self._recipe.augment)

    def _forward(self, needs: dict[str, _Need]) -> Callable[[Any], dict[str, Any]]:
        names, encoder = tuple(sorted(needs)), self._network.encoder
        if encoder is not None:
            return lambda patches: {names[0]: encoder.features(np.asarray(patches))}
        if names not in self._forwards:
            tensors = {name: need.tensor for name, need in needs.items()}
            prefix = keras.Model(self._network.model.input, tensors)
            self._forwards[names] = tf.function(lambda x: prefix(x, training=False), reduce_retracing=True)
        return self._forwards[names]

    def _path(self, need: _Need, view: int | None) -> Path:
        name = need.tensor.name
        if self._network.encoder is not None:
            self._prefixes[name] = self._network.encoder.digest
        if name not in self._prefixes:
            self._prefixes[name] = _digest_layers(keras.Model(self._network.model.input, need.tensor).layers)
        content: list[Any] = [1, self._prefixes[name], tf.__version__, self._recipe.precision, self._deterministic]
        if view is None:
            content += ["plain", self._patches["val"]]
        else:
            augment = self._recipe.augment.model_dump(mode="json")
            content += ["augmented", self._patches["train"], augment, self._seed, view]
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return self._folder / f"{key[:32]}.npy"


def _views(need: _Need) -> list[int | None]:
    return [*range(need.views), None]


def _digest_patches(pixels: np.ndarray, rows: np.ndarray, step: int = 4096) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(rows), step):
        digest.update(pixels[rows[start : start + step]].tobytes())
    return digest.hexdigest()


def _digest_layers(layers: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for layer in layers:
        settings = {name: value for name, value in layer.get_config().items() if name != "trainable"}
        digest.update(json.dumps([type(layer).__name__, settings], sort_keys=True, default=str).encode())
        for array in layer.get_weights():
            digest.update(array.tobytes())
    return digest.hexdigest()
