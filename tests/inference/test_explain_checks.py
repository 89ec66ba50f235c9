"""What checks the maps: shuffled weights and occlusion; and how maps are scaled, compared and drawn."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
from known_networks import PATCHES, RNG, averaging, inside, network, start

from ductal.errors import DataError, RunError
from ductal.inference import explain
from ductal.inference.explain import agreement, grad_cam, is_empty, normalised, occlusion, overlay
from ductal.inference.predictor import Predictor
from ductal.inference.sanity import randomisation

# -- The randomisation test -----------------------------------------------------------------------


def spots(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with one square each, at random: of rows (label 1) or columns (label 0)."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(120, 180, (count, 50, 50, 3)).astype(np.uint8)
    labels = rng.integers(0, 2, count)
    stripes = np.tile([[30], [230]], (8, 16)).astype(np.uint8)
    for patch, label, (y, x) in zip(patches, labels, rng.integers(0, 35, (count, 2)), strict=True):
        patch[y : y + 16, x : x + 16] = (stripes if label else stripes.T)[..., None]
    return patches, labels


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    """Has learned to tell stripes of rows from stripes of columns."""
    keras.utils.set_random_seed(5)
    inputs, x = start()
    for number, filters in enumerate((8, 12, 12), start=1):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{number}")(x)
        x = keras.layers.MaxPooling2D()(x) if number < 3 else x
    model = network(x, inputs)
    model.get_layer("logit").set_weights([RNG.normal(size=(12, 1)), np.zeros(1)])
    model.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy")
    patches, labels = spots(400, seed=1)
    model.fit(patches, labels, batch_size=32, epochs=8, verbose=0)
    return model


def test_trained_maps_find_the_square(trained: keras.Model) -> None:
    patches, labels = spots(40, seed=2)
    right = (Predictor(trained).predict(patches) >= 0.5) == labels
    assert right.mean() > 0.9
    square = np.abs(patches[..., 0].astype(int) - 150) > 60
    for maps in (grad_cam(trained, patches), occlusion(Predictor(trained).predict, patches)):
        highest = maps[right].reshape(right.sum(), -1).argmax(axis=1)
        hits = square[right].reshape(right.sum(), -1)[np.arange(right.sum()), highest]
        assert hits.mean() > 0.85  # 0.1 by chance


def test_shuffled_weights_change_the_maps(trained: keras.Model) -> None:
    """Adebayo et al. 2018: top first, then all."""
    patches, _ = spots(40, seed=3)
    table = randomisation(trained, patches, repeats=8)
    assert table["shuffled"].tolist() == [1, 1, 2, 4]
    assert table["of"].tolist() == [4] * 4
    assert (table["maps"] > 8 * 20).all()
    assert (table["agreement"].abs() < 0.5).all()
    assert (table["highest"].iloc[2:] < 0.8).all()  # one cascade may by chance spare the last layer
    again = randomisation(trained, patches[:4], repeats=2)
    pd.testing.assert_frame_equal(again, randomisation(trained, patches[:4], repeats=2))


# -- Occlusion ------------------------------------------------------------------------------------


def test_occlusion_counts_what_a_square_hides() -> None:
    """A logit that is the sum over the red channel: each pixel's drop is known exactly."""

    def predict(patches: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-patches[..., 0].astype(float).sum(axis=(1, 2)) / 1e5))

    found = occlusion(predict, PATCHES, size=1, stride=1, fill=(0, 0, 0), target="cancer")
    np.testing.assert_allclose(found, PATCHES[..., 0] / 1e5, atol=1e-6)
    found = occlusion(predict, PATCHES, size=10, stride=10, fill="mean", target="not_cancer")
    over = PATCHES[..., 0].astype(float) - np.rint(PATCHES[..., 0].mean(axis=(1, 2)))[:, None, None]
    sums = over.reshape(6, 5, 10, 5, 10).sum(axis=(2, 4))
    np.testing.assert_allclose(found[:, ::10, ::10], -sums / 1e5, atol=1e-5)


def test_every_pixel_is_covered_whatever_the_stride(one_quadrant: keras.Model) -> None:
    assert explain._starts(12, 7) == [0, 7, 14, 21, 28, 35, 38]
    assert explain._starts(50, 50) == [0]
    predict = Predictor(one_quadrant).predict
    told: list[tuple[int, int]] = []
    found = occlusion(predict, PATCHES, size=12, stride=7, batch_size=5, progress=lambda *step: told.append(step))
    assert np.isfinite(found).all()
    assert told == [(5, 6), (6, 6)]
    np.testing.assert_allclose(found, occlusion(predict, PATCHES, size=12, stride=7, batch_size=1), atol=1e-4)


def test_occlusion_sees_what_grad_cam_cannot() -> None:
    """One weight a channel: where the head looks is lost on Grad-CAM, and low agreement tells."""
    inputs, x = start()
    model = network(averaging(x), inputs, dense="zeros")
    kernel = np.zeros((5, 5))
    kernel[:2, :2] = 5
    model.get_layer("logit").set_weights([kernel.reshape(-1, 1), np.zeros(1)])
    shades = PATCHES // 8
    maps = grad_cam(model, shades, target="cancer")
    drops = normalised(occlusion(Predictor(model).predict, shades, fill=(255, 255, 255), target="cancer"))
    assert (inside(maps, margin=5) < 0.4).all()
    assert (inside(drops, margin=10) > 0.99).all()
    assert (np.abs(agreement(maps, drops)) < 0.6).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "from 1 to 50 pixels"),
        ({"size": 51}, "from 1 to 50 pixels"),
        ({"stride": 11}, "every pixel is covered"),
        ({"fill": "white"}, "such as"),
        ({"fill": (1, 2)}, "from 0 to 255"),
        ({"fill": (1, 2, 256)}, "from 0 to 255"),
        ({"target": "tumour"}, "one of called, cancer, not_cancer"),
        ({"target": np.ones(6)}, "bool array"),
    ],
)
def test_wrong_settings_are_named(wrong: dict, message: str, one_quadrant: keras.Model) -> None:
    with pytest.raises(DataError, match=message):
        occlusion(Predictor(one_quadrant).predict, PATCHES, **wrong)
    with pytest.raises(RunError, match="one probability for each"):
        occlusion(lambda patches: np.zeros((len(patches), 1)), PATCHES)
    with pytest.raises(DataError, match="do not rescale"):
        grad_cam(one_quadrant, PATCHES / 255.0)


# -- Maps -----------------------------------------------------------------------------------------


def test_normalised_rule() -> None:
    maps = np.array([[[-1, 2], [4, 0]], [[-1, 0], [-2, -3]], [[0.005, 0], [0, 0]]], np.float32)
    found = normalised(maps, floor=0.01)
    np.testing.assert_allclose(found[0], [[0, 0.5], [1, 0]])
    assert is_empty(found).tolist() == [False, True, True]
    assert normalised(maps)[2, 0, 0] == 1


def test_agreement() -> None:
    ramp = np.arange(2500.0).reshape(1, 50, 50)
    maps = np.concatenate([ramp, ramp, ramp, RNG.random((1, 50, 50))])
    other = np.concatenate([np.exp(ramp / 500), -ramp, np.zeros_like(ramp), ramp])
    found = agreement(maps, other)
    np.testing.assert_allclose(found[:2], [1, -1], atol=1e-6)
    assert np.isnan(found[2])
    assert abs(found[3]) < 0.1
    assert agreement(maps[:0], other[:0]).shape == (0,)
    with pytest.raises(DataError, match="of one shape"):
        agreement(maps, other[:2])


def test_overlay() -> None:
    maps = RNG.random((6, 50, 50)).astype(np.float32)
    assert overlay(PATCHES, maps, opacity=0).tolist() == PATCHES.tolist()
    found = overlay(PATCHES, maps, scale=3)
    assert (found.shape, found.dtype) == ((6, 150, 150, 3), np.uint8)
    np.testing.assert_array_equal(found[:, ::3, ::3], overlay(PATCHES, maps))
    low, high = (overlay(PATCHES, np.full_like(maps, value), opacity=1)[0, 0, 0].tolist() for value in (0, 1))
    assert (low, high) == ([68, 1, 84], [253, 231, 37])  # the ends of viridis
    for wrong in ({"maps": maps * 2}, {"maps": maps - 1}, {"maps": maps[:2]}, {"maps": maps * np.nan}):
        with pytest.raises(DataError, match="values from 0 to 1"):
            overlay(PATCHES, **wrong)
    for wrong in ({"opacity": 1.5}, {"scale": 0}):
        with pytest.raises(DataError, match="Opacity is from 0 to 1"):
            overlay(PATCHES, maps, **wrong)
