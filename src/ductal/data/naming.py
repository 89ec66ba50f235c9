"""The file names of the IDC archive: ``<patient>_idx5_x<X>_y<Y>_class<C>.png``."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

# No leading zeros: a genuine name and (patient, x, y, label) stand for each other one to one.
_NAME = re.compile(
    r"(?:^|[/\\])(?P<patient>[A-Za-z0-9][A-Za-z0-9-]*)_idx5_x(?P<x>[1-9][0-9]{0,7})_y(?P<y>[1-9][0-9]{0,7})"
    r"_class(?P<label>[01])(?i:\.(?:png|jpe?g|tiff?))?\Z"
)
# Control, format, surrogate and unassigned characters, and line and paragraph separators.
_HIDDEN = {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}


class PatchName(NamedTuple):
    """What a genuine name says: the patient, the place on the slide and the class.

    `x` (column) and `y` (row) are 1-based pixels of the down-sampled slide, so that a patch
    covers columns x-1 .. x+48 and rows y-1 .. y+48. `label` is 1 for IDC, 0 for not.
    """

    patient: str
    x: int
    y: int
    label: int


def parse_patch_name(stem_or_path: str | Path) -> PatchName | None:
    """Read a genuine archive name; a folder before it and an image suffix after it are allowed.

    Returns:
        The four facts in the name, or None when the name is not a genuine one.

    Example:
        >>> parse_patch_name("10254/0/10254_idx5_x101_y1351_class0.png")
        PatchName(patient='10254', x=101, y=1351, label=0)
    """
    found = _NAME.search(str(stem_or_path))
    if found is None:
        return None
    patient, x, y, label = found.groups()
    return PatchName(patient, int(x), int(y), int(label))


def format_patch_name(patient: str, x: int, y: int, label: int) -> str:
    """The genuine name of a patch, with its ``.png`` suffix; the inverse of `parse_patch_name`."""
    return f"{patient}_idx5_x{x}_y{y}_class{label}.png"


def is_printable(name: str) -> bool:
    """Whether a name shows as what it is: no control, format (such as right-to-left marks) or broken characters."""
    return (name.isascii() and name.isprintable()) or not any(unicodedata.category(one) in _HIDDEN for one in name)


def is_plain(name: str) -> bool:
    """Whether a patient's name can be part of a file name: up to 100 visible characters, none that separates."""
    return 0 < len(name) <= 100 and name[0] != "." and not set(name) & set('/\\:*?"<>|') and is_printable(name)


def folded(name: str) -> str:
    """Equal for names that some file systems hold to be the same: case and Unicode form aside."""
    return name.casefold() if name.isascii() else unicodedata.normalize("NFC", name).casefold()
