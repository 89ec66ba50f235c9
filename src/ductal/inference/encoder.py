"""Frozen encoders in ONNX: from uint8 patches to features, with the pixels that the encoder was trained on.

What runs them is chosen by `onnx_runtimes`; all compute in float32. A run that stands on one keeps it in its
folder `encoder/`: `encoder.onnx`, files with its numbers, and `encoder.json` with how it is called and all SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ductal.errors import RunError
from ductal.inference.onnx_runtimes import Runtime, open_session
from ductal.loading.onnx_file import onnx_files
from ductal.loading.records import read_json

ENCODER_FOLDER = "encoder"
MODEL, ABOUT = "encoder.onnx", "encoder.json"
LARGEST = 60_000.0  # of a feature: the cache keeps them in float16
_PIXELS = 256 * 96 * 96  # of one pass: large enough to use the processor well, small enough for its memory
Share = Annotated[float, Field(gt=-10.0, lt=10.0)]
Positive = Annotated[float, Field(gt=0.0, lt=10.0)]


class EncoderInput(BaseModel):
    """What an encoder expects, and which of what it gives are the features.

    Attributes:
        mean, std: RGB; the encoder takes (pixels / 255 - mean) / std.
        layout: "nchw" as PyTorch's, or "nhwc" as Keras's.
        output: name of the output; None where there is only one.
        tokens: of an output (n, tokens, d), the "first" (the class token), the "mean", or "first+mean", one after
            the other, (n, 2 d). An output (n, d) is taken as it is, and one with maps is averaged over them.
        prefix_tokens: how many tokens before those of the image (class token, registers) a mean leaves out; None is
            1 of "first+mean" and 0 of "mean", which is then over all tokens.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: tuple[Share, Share, Share]
    std: tuple[Positive, Positive, Positive]
    layout: Literal["nchw", "nhwc"] = "nchw"
    output: str | None = Field(default=None, max_length=500)
    tokens: Literal["first", "mean", "first+mean"] = "first"
    prefix_tokens: int | None = Field(default=None, ge=0, le=64)

    @model_validator(mode="after")
    def _prefix_is_of_a_mean(self) -> EncoderInput:
        if self.prefix_tokens is not None and self.tokens == "first":
            raise ValueError('prefix_tokens has no effect with tokens = "first"; use "mean" or "first+mean"')
        return self


class _About(BaseModel):
    """`encoder.json`."""

    model_config = ConfigDict(extra="forbid")

    input: EncoderInput
    input_px: int = Field(ge=32, le=600)
    files: dict[str, str]


class OnnxEncoder:
    """A frozen network that turns patches into features.

    Args:
        path: the ONNX file.
        settings: how it is called.
        input_px: side of the square it takes; patches are resized to it, bilinearly.
        runtime: what shall run it; None chooses, see `ductal.inference.onnx_runtimes.open_session`.

    Attributes:
        width: features of a patch.
        files: SHA-256 (hex) of the ONNX file and of those with its numbers, by name.
        runtime: what runs it: "openvino", "onnxruntime" or "onnxruntime-cuda".

    Raises:
        RunError: a file that is not allowed (see `onnx_files`), no runtime installed, or a network that does not take
            such pixels or give features; the message is the reason alone.
    """

    def __init__(
        self, path: Path, settings: EncoderInput, input_px: int, runtime: Runtime | None = None
    ) -> None:
        self._paths = onnx_files(path)
        self.settings, self.input_px = settings, input_px
        self.files = {file.name: sha256_of(file) for file in self._paths}
        self._resize = resize_matrix(input_px)
        self._session = open_session(path, input_px, settings.layout, settings.output, runtime)
        self.runtime = self._session.name
        probe = self._features(np.full((1, 50, 50, 3), 255, np.uint8))
        self.width = probe.shape[1]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of everything that features depend on, besides the patches; also of what computes them."""
        about = [self.settings.model_dump(mode="json"), self.input_px, sorted(self.files.values()), self.runtime]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def features(self, patches: np.ndarray) -> np.ndarray:
        """float32 (n, width), of uint8 RGB patches (n, 50, 50, 3). Raises RunError for ones that are not finite."""
        try:
            return self._features(patches)
        except RunError as error:
            raise RunError(
                f"The encoder {self._paths[0]} cannot be used for these patches: {error}. Check mean and std in the "
                "recipe's [encoder], or export the network in float32, and train again."
            ) from error

    def _features(self, patches: np.ndarray) -> np.ndarray:
        """`features`; the message of its errors is the reason alone."""
        fixed = self._session.batch
        size = fixed or max(1, _PIXELS // self.input_px**2)
        parts = []
        for start in range(0, len(patches), size):
            pixels = self.pixels(patches[start : start + size])
            count = len(pixels)
            if fixed and count < fixed:
                pixels = np.concatenate([pixels, np.repeat(pixels[-1:], fixed - count, axis=0)])
            parts.append(self._pooled(self._session.run(pixels))[:count])
        found = np.concatenate(parts) if parts else np.empty((0, self.width), np.float32)
        if not np.isfinite(found).all() or abs(found).max(initial=0.0) > LARGEST:
            raise RunError(f"it gives features that are not finite, or beyond {LARGEST:.0f}")
        return found

    def pixels(self, patches: np.ndarray) -> np.ndarray:
        """What the encoder is given, float32 (n, 3, px, px) or (n, px, px, 3), of uint8 (n, 50, 50, 3)."""
        mean, std = (np.asarray(value, np.float32) for value in (self.settings.mean, self.settings.std))
        x = np.transpose(patches, (0, 3, 1, 2)).astype(np.float32)
        x = self._resize @ x @ self._resize.T
        x = (x / np.float32(255) - mean[:, None, None]) / std[:, None, None]
        return np.ascontiguousarray(x if self.settings.layout == "nchw" else np.transpose(x, (0, 2, 3, 1)))

    def save(self, folder: Path) -> None:
        """Copy the encoder into `folder`. Raises OSError where the disk refuses."""
        folder.mkdir()
        names = [MODEL, *(file.name for file in self._paths[1:])]
        for source, name in zip(self._paths, names, strict=True):
            shutil.copyfile(source, folder / name)
        files = dict(zip(names, self.files.values(), strict=True))
        about = _About(input=self.settings, input_px=self.input_px, files=files)
        (folder / ABOUT).write_text(about.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def _pooled(self, given: np.ndarray) -> np.ndarray:
        if given.ndim == 3:
            given = self._of_tokens(given)
        elif self.settings.tokens == "first+mean" or self.settings.prefix_tokens is not None:
            raise RunError(f"its output has the shape {given.shape}, which are no tokens (n, tokens, d)")
        if given.ndim == 4:
            given = given.mean(axis=(2, 3) if self.settings.layout == "nchw" else (1, 2))
        if given.ndim != 2:
            raise RunError(f"its output has the shape {given.shape}, which are no features of patches")
        return given.astype(np.float32)

    def _of_tokens(self, given: np.ndarray) -> np.ndarray:
        kind, before = self.settings.tokens, self.settings.prefix_tokens
        if kind == "first":
            return given[:, 0]
        if before is None:
            before = 1 if kind == "first+mean" else 0
        if before >= given.shape[1]:
            raise RunError(f"it gives {given.shape[1]} tokens, and the mean is to leave out the first {before}")
        mean = given[:, before:].mean(axis=1)
        return mean if kind == "mean" else np.concatenate([given[:, 0], mean], axis=1)


def has_encoder(run_folder: Path) -> bool:
    """Whether a run stands on an encoder of its own."""
    return (run_folder / ENCODER_FOLDER).is_dir()


def open_encoder(run_folder: Path, runtime: Runtime | None = None) -> OnnxEncoder:
    """The encoder that is kept in a run; `runtime` as for `OnnxEncoder`.

    Raises:
        RunError: it is missing, damaged, not the one of the training, or refused.
    """
    folder = run_folder / ENCODER_FOLDER
    try:
        about = _About.model_validate(read_json(folder / ABOUT))
        if any(path.is_symlink() for path in (folder, *folder.iterdir())):
            raise RunError("a link is in it")
        encoder = OnnxEncoder(folder / MODEL, about.input, about.input_px, runtime)
        if encoder.files != about.files:
            raise RunError("its SHA-256 are not those that encoder.json names")
    except (RunError, OSError, ValueError, ValidationError) as error:
        raise RunError(
            f"The encoder in {folder} was refused: {error}. Copy the whole run again, or train the recipe again."
        ) from error
    return encoder


def resize_matrix(side: int, patch_px: int = 50) -> np.ndarray:
    """float32 (side, patch_px): bilinear resizing along one axis, half-pixel centres, low-pass where it shrinks."""
    scale = patch_px / side
    centres = (np.arange(side) + 0.5) * scale - 0.5
    distance = abs(centres[:, None].clip(0, patch_px - 1) - np.arange(patch_px)[None])
    weights = (1.0 - distance / max(scale, 1.0)).clip(min=0.0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def sha256_of(file: Path) -> str:
    """Hex digest of a file's content."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
