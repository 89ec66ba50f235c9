"""Links in folders that may come from somebody else: none, since what is read or written there could be elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from ductal.errors import RunError


def odd_file(folder: Path) -> Path | None:
    """Something in `folder`, at any depth, that is neither a folder nor a plain file: a link, pipe or device.

    The folder itself may be a link: whoever names it knows where it leads.
    """
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry))
                elif not entry.is_file(follow_symlinks=False):
                    return Path(entry)
    return None


def refuse_links(run_folder: Path) -> None:
    """Raises RunError where a run folder holds a link, pipe or device, or a folder that cannot be listed.

    A run folder that is not there is no matter here: whoever reads it tells.
    """
    try:
        found = odd_file(run_folder) if run_folder.is_dir() else None
    except OSError as error:
        raise RunError(
            f"{str(error.filename or run_folder)[:200]} cannot be looked into ({error.strerror or error}), so there "
            "could be links to other places in it. Check its permissions, or copy the whole run again."
        ) from error
    if found:
        raise RunError(link_text(found))


def link_text(path: Path) -> str:
    """What to say of such a file."""
    return (
        f"{path} is a symbolic link, pipe or device; run folders and cohorts hold plain files only, since a "
        "stranger's link could lead anywhere. If you made it, copy what it stands for to its place."
    )


def is_plain_file(path: Path) -> bool:
    """Whether it is a file and no link; True also where there is nothing, which whoever reads it tells."""
    return not path.is_symlink() and (path.is_file() or not path.exists())
