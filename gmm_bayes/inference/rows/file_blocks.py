"""Rows of a file as the kernel's blocks, one share of them at a time."""

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from gmm_bayes._row_files import RowFile
from gmm_bayes.core.likelihood import RowBlocks, blank_blocks, fill_block, rows_in_blocks
from gmm_bayes.inference.rows.standardization import Standardization

__all__ = ["FileBlocks"]


class FileBlocks(NamedTuple):
    """How rows of a file become blocks: each share of the rows has as many.

    Attributes
    ----------
    rows : RowFile
    units : Standardization
        Of the blocks.
    n_shares : int
        Devices along which the rows are spread.
    blocks, length : int
        Blocks of a share that its rows would fill, and rows in a block.
    centres : ndarray, shape (n_components, n_features), optional
        Then the blocks are in single precision, and each keeps its rows less their mean. The rows
        of a block have the same nearest centre, so that they are near each other.
    """

    rows: RowFile
    units: Standardization
    n_shares: int
    blocks: int
    length: int
    centres: np.ndarray | None = None

    @classmethod
    def plan(
        cls,
        rows: RowFile,
        units: Standardization,
        rows_per_block: int,
        n_shares: int,
        centres: np.ndarray | None,
    ) -> "FileBlocks":
        """Cut rows into blocks of about so many, and as many for each share."""
        n_blocks, length = rows_in_blocks(len(rows), rows_per_block, n_shares)
        return cls(rows, units, n_shares, n_blocks // n_shares, length, centres)

    @property
    def per_share(self) -> int:
        """Blocks of a share: the last one of every centre may not be full."""
        return self.blocks + (0 if self.centres is None else len(self.centres) - 1)

    def read(self, share: int) -> RowBlocks:
        """Read one share of the rows, and nothing else of the file."""
        size = self.blocks * self.length
        first, last = (min(i * size, len(self.rows)) for i in (share, share + 1))
        values = np.zeros((self.blocks, self.rows.shape[1] + 1, self.length))
        weights = np.zeros((self.blocks, self.length))
        at = 0
        for piece in self.rows.pieces(first, last):
            block, column = np.divmod(np.arange(at, at + len(piece)), self.length)
            values[block, 0, column] = 1
            values[block, 1:, column] = self.units.apply(piece)
            weights[block, column] = 1
            at += len(piece)
        if self.centres is None:
            return RowBlocks(values, weights)
        return self._centred(values, last - first, cKDTree(self.centres))

    def _centred(self, values: np.ndarray, n_rows: int, tree: cKDTree) -> RowBlocks:
        """The same rows in single precision, sorted, less the mean of their block."""
        nearest = np.concatenate([tree.query(block[1:].T)[1] for block in values])[:n_rows]
        order = np.argsort(nearest, kind="stable")
        ends = np.cumsum(np.bincount(nearest, minlength=tree.n))
        blocks = blank_blocks(self.per_share, values.shape[1] - 1, self.length, "float32")
        begin = 0
        for block in range(self.per_share):
            # Up to the end of those with the same centre.
            end = ends[np.searchsorted(ends, begin, side="right")] if begin < n_rows else begin
            picked = order[begin : min(begin + self.length, end)]
            if not len(picked):
                break
            source, column = np.divmod(picked, self.length)
            fill_block(blocks, block, values[source, 1:, column])
            begin += len(picked)
        return blocks
