"""The command line in a process that says on stderr which rows of a file it reads.

Run as a program by test_distributed.py.
"""

import sys

from gmm_bayes._row_files import RowFile
from gmm_bayes.cli import main

pieces = RowFile.pieces


def watched(self, begin=0, end=None):
    sys.stderr.write(f"rows {begin} to {end}\n")
    return pieces(self, begin, end)


if __name__ == "__main__":
    RowFile.pieces = watched
    main()
