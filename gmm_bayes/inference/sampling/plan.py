"""Where chains begin, and in which coordinates."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from gmm_bayes.inference.rows.placement import agree
from gmm_bayes.inference.sampling.coordinates import AffineMap, BlockMap

__all__ = ["Plan"]

_MAPS = {kind.__name__: kind for kind in (AffineMap, BlockMap)}


class Plan(NamedTuple):
    """Where chains begin, and in which coordinates.

    Attributes
    ----------
    affine : AffineMap or BlockMap
    starts : ndarray, shape (num_chains, dimension)
        In the coordinates of the map.
    adapted : bool
        Whether the coordinates make a metric unnecessary.
    facts : dict
        What was found, for the record.
    keys : ndarray of uint32, shape (num_chains, 2)
        Of the chains' own random numbers.
    """

    affine: AffineMap | BlockMap
    starts: np.ndarray
    adapted: bool
    facts: dict[str, Any]
    keys: np.ndarray

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return it as arrays of numbers, by name."""
        said = {"affine": type(self.affine).__name__, "adapted": self.adapted, "facts": self.facts}
        return {
            **{f"affine.{name}": np.asarray(a) for name, a in self.affine._asdict().items()},
            "starts": self.starts,
            "keys": self.keys,
            "plan": np.frombuffer(json.dumps(said).encode(), np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Plan":
        """Return the plan of which these are the arrays."""
        said = json.loads(arrays["plan"].tobytes())
        kind = _MAPS[said["affine"]]
        affine = kind(*(arrays[f"affine.{name}"] for name in kind._fields))
        return cls(affine, arrays["starts"], said["adapted"], said["facts"], arrays["keys"])

    def agreed(self, mesh: Mesh | None) -> "Plan":
        """The plan of the first process."""
        numbers = agree((self.affine, self.starts, np.asarray(self.adapted)), mesh)
        affine, starts, adapted = numbers
        return self._replace(affine=affine, starts=starts, adapted=bool(adapted))
