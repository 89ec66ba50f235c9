"""Tiles cover a slide without gap or overlap; reading ahead keeps order; chunks are full."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ductal.slides import tiling as module
from ductal.slides.reader import Slide, open_slide
from ductal.slides.tiling import Tiling, in_chunks, read_ahead


class Sized:
    """A source that has a size only."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.sizes, self.downsamples = [size], [1.0]


@given(
    width=st.integers(1, 3000), height=st.integers(1, 3000), mpp=st.floats(0.1, 4.0), spacing=st.floats(0.5, 8.0),
)  # fmt: skip
def test_tiles_cover_the_slide_once(width: int, height: int, mpp: float, spacing: float) -> None:
    tiling = Tiling(Slide(Path("a"), mpp, mpp, "", Sized((width, height))), spacing)
    rows, columns = (one.ravel() for one in np.indices(tiling.shape))
    boxes = tiling.boxes(rows, columns)
    assert (boxes[:, 2:] > -1e-6).all()
    assert np.prod(boxes[:, 2:], axis=1).sum() == pytest.approx(width * height, rel=1e-6)
    wanted = np.random.default_rng(width).random(tiling.shape) < 0.2
    covered = np.zeros(tiling.shape, int)
    for top, left, bottom, right in tiling.blocks(wanted):
        covered[top:bottom, left:right] += 1
        assert max(bottom - top, right - left) * tiling.side_px <= max(module.LARGEST_BLOCK_PX, tiling.side_px) + 1e-6
    assert covered.max() <= 1
    assert covered[wanted].all()


def test_tiles_are_those_of_the_picture(
    square: Path, square_pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_slide(square) as slide:
        tiling = Tiling(slide, 4.0)
        assert tiling.shape == (5, 6)
        assert tiling.side_px == pytest.approx(400, abs=0.01)
        whole = tiling.read((0, 0, 5, 6))
        assert whole.shape == (5, 6, 50, 50, 3)
        difference = whole[2, 3].astype(int) - square_pixels[100:150, 150:200]
        assert np.abs(difference).max() <= 1
        monkeypatch.setattr(module, "LARGEST_BLOCK_PX", 250)
        for block in tiling.blocks(np.ones((5, 6), bool)):
            part = whole[block[0] : block[2], block[1] : block[3]]
            assert np.abs(tiling.read(block).astype(int) - part).max() <= 1


def test_results_come_in_order_from_other_threads() -> None:
    names = set()

    def work(number: int) -> int:
        names.add(threading.current_thread().name)
        return number * number

    assert list(read_ahead(work, range(20))) == [number * number for number in range(20)]
    assert all(name.startswith("slide") for name in names)


def test_reading_ahead_is_bounded_and_can_be_stopped() -> None:
    begun = []
    results = read_ahead(begun.append, range(1000))
    for _ in range(3):
        next(results)
    results.close()
    assert len(begun) < 3 + 2 * (module.available_cores() + 1)


def test_an_error_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(read_ahead(lambda number: 1 // number, [1, 0, 1]))


@given(lengths=st.lists(st.integers(0, 25), max_size=12), size=st.integers(1, 20))
def test_chunks_are_full_and_lose_nothing(lengths: list[int], size: int) -> None:
    values = np.arange(sum(lengths))
    parts = np.split(values, np.cumsum(lengths)[:-1]) if lengths else []
    chunks = list(in_chunks(iter(parts), size))
    assert all(len(chunk) == size for chunk in chunks[:-1])
    np.testing.assert_array_equal(np.concatenate(chunks) if chunks else [], values)
