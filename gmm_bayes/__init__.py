"""Bayesian Gaussian mixture models on JAX and NumPyro.

Public names, which `__init__.pyi` lists, are imported when they are first used, so that `import
gmm_bayes` is quick and changes nothing about JAX.
"""

from typing import Any

from lazy_loader import attach_stub

# It must see every fork from here on.
from gmm_bayes.machine import forks as _forks  # noqa: F401

__version__ = "0.1.0"

_find, _, __all__ = attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'gmm_bayes' has no attribute {name!r}")
    return _find(name)


def __dir__() -> list[str]:
    return sorted(__all__)
