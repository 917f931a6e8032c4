"""load(): whatever `save` wrote, one fit or many."""

import os
from pathlib import Path

from gmm_bayes.inference.batch import store
from gmm_bayes.inference.batch.result import ManyFits
from gmm_bayes.inference.result import netcdf
from gmm_bayes.inference.result.gmm_fit import GMMFit, of_tree

__all__ = ["load"]


def load(path: str | os.PathLike[str]) -> GMMFit | ManyFits:
    """Read a result that `GMMFit.save` or `ManyFits.save` wrote.

    Parameters
    ----------
    path : path
        A netCDF file.

    Returns
    -------
    GMMFit or ManyFits
        Equal to the fit that was saved, or as the fits that were.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If there is no such file.
    FileFormatError
        If the file is damaged, not a result, or of another format version.
    """
    source = Path(path)
    tree = netcdf.open_tree(source)
    if tree.attrs.get("format") != store.FORMAT:
        return of_tree(tree, source)
    return ManyFits(*store.read(tree, source))
