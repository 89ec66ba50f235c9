"""Uploaded patches: decoded in memory, by content and not by name, and never larger than a patch."""

from __future__ import annotations

import numpy as np

from ductal.data.quality import PATCH_SIZE, UNKNOWN_FORMAT, decode
from ductal.web.problems import ApiError

NAME_LENGTH = 120


def shown_name(name: str | None) -> str:
    """A client's name of a file as it may be shown again: without folders and control characters, not too long."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[:NAME_LENGTH] or "unnamed"


def read_patch(content: bytes) -> np.ndarray:
    """uint8 (50, 50, 3) of an image file.

    Raises:
        ApiError: "unsupported_format", "damaged", or "not_a_patch" where the size is another.
    """
    pixels, reason, detail = decode(content)
    if pixels is not None:
        return pixels
    if reason == "size":
        raise ApiError(
            "not_a_patch",
            f"The image is {detail}, and a patch is {PATCH_SIZE} x {PATCH_SIZE} px. Send a larger image of tissue as "
            "a region, to /api/v1/slides.",
        )
    if detail == UNKNOWN_FORMAT:
        raise ApiError(
            "unsupported_format", f"The file is {detail}. Its content decides, not its name. Save the image as PNG."
        )
    raise ApiError("damaged", f"The image cannot be decoded ({detail}). Save it again as an 8-bit PNG.")
