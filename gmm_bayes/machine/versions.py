"""Versions of packages, also where this one runs from its source and is not installed."""

from collections.abc import Iterable
from importlib import metadata

__all__ = ["versions"]


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of packages by their names.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        If one of the others is not installed.
    """
    from gmm_bayes import __version__

    # Of an installed package that is not the one that runs, metadata would speak of the wrong one.
    own = {"gmm_bayes": __version__}
    return {name: own.get(name) or metadata.version(name) for name in packages}
