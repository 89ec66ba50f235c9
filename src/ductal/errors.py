"""Typed errors: every message says what happened, why, and what to do.

Each class is also the builtin it refines, so ``except ValueError`` keeps working for
people who do not know this module. ``exit_code`` is what the command line returns.
"""

from __future__ import annotations


class DuctalError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class DataError(DuctalError, ValueError):
    """The patches, archive or cohort cannot be used as they are."""

    exit_code = 3


class UnsafeArchiveError(DataError):
    """An archive tries to leave its folder, or unpacks to far more than it should."""


class RecipeError(DuctalError, ValueError):
    """A recipe file has an unknown key, a wrong value or a combination that cannot train."""

    exit_code = 4


class LeakError(DuctalError, ValueError):
    """The audit found the same patient or tissue on both sides of a split."""

    exit_code = 5


class HeldOutError(DuctalError, PermissionError):
    """Something other than the final evaluation asked for test patients."""

    exit_code = 5


class WeightsError(DuctalError, FileNotFoundError):
    """Pretrained weights are not to be had here, or are not what they claim to be."""

    exit_code = 6


class FetchError(DuctalError, ConnectionError):
    """The download failed, or what came is not the archive."""

    exit_code = 7


class StorageError(DuctalError, OSError):
    """The disk is full, read-only, or refused the write."""

    exit_code = 8


class BusyError(StorageError):
    """Another command is writing the same folder."""

    exit_code = 11


class FeaturesError(StorageError):
    """The disk has no room for the activations that one training cannot do without; another may need fewer."""


class RunError(DuctalError, ValueError):
    """A run folder is missing, incomplete, or does not fit what is asked of it."""

    exit_code = 9


class ExportError(DuctalError, RuntimeError):
    """A model cannot be written in a format here, or what was written is not the model."""

    exit_code = 10


class TrackingError(DuctalError, ValueError):
    """A tracker that is not known, or whose server has no address."""

    exit_code = 2


class ServeError(DuctalError, ValueError):
    """The web application cannot start with these options on this machine."""

    exit_code = 2


class ClusterError(DuctalError, ConnectionError):
    """The Ray cluster cannot be reached, or its nodes do not have what the work needs."""

    exit_code = 12
