"""The exceptions and warnings of the package, so that callers can catch them by name."""

__all__ = [
    "CheckpointError",
    "CheckpointWarning",
    "ConfigError",
    "ConvergenceWarning",
    "DataError",
    "DataWarning",
    "DeviceError",
    "FileFormatError",
    "GMMBayesError",
    "GMMBayesWarning",
    "InferenceError",
    "InsufficientMemoryError",
    "LabelSwitchingError",
    "LabelSwitchingWarning",
    "LargeArrayWarning",
    "MissingDependencyError",
    "OutputError",
    "TableError",
]


class GMMBayesError(Exception):
    """Base of the errors that are not simply a wrong value or type."""


class DeviceError(GMMBayesError, RuntimeError):
    """The device that was asked for is not there."""


class FileFormatError(GMMBayesError, ValueError):
    """A file is not a result of this package, is damaged, or has another format version."""


class CheckpointError(GMMBayesError, ValueError):
    """A run cannot be kept in a directory, or not go on from what is kept there."""


class InsufficientMemoryError(GMMBayesError, MemoryError):
    """The memory is too small for what was asked, by its count before the run."""


class InferenceError(GMMBayesError, RuntimeError):
    """Sampling could not start or could not go on."""


class LabelSwitchingError(GMMBayesError, RuntimeError):
    """The components changed places between draws, so an average per component means nothing."""


class MissingDependencyError(GMMBayesError, ImportError):
    """An optional part is not installed; the message names the extra that brings it."""


class ConfigError(GMMBayesError, ValueError):
    """A job file, or an option that changes it, is not usable; the message names the key."""


class OutputError(GMMBayesError, OSError):
    """The results cannot be written where they should be."""


class TableError(GMMBayesError, ValueError):
    """A file does not hold a table of numbers; the message says where it stops being one."""


class DataError(GMMBayesError, ValueError):
    """The data of a job cannot be read or fitted."""


class GMMBayesWarning(UserWarning):
    """Base of the warnings of the package."""


class CheckpointWarning(GMMBayesWarning):
    """What a run has could not be written down; it goes on and tries again."""


class ConvergenceWarning(GMMBayesWarning):
    """The chains should not be believed as they are."""


class LabelSwitchingWarning(ConvergenceWarning):
    """The draws may be believed, but averages per component mean nothing before `align_labels`."""


class DataWarning(GMMBayesWarning):
    """The data cannot teach everything that was asked of them."""


class LargeArrayWarning(GMMBayesWarning):
    """An explicitly requested array is very large."""
