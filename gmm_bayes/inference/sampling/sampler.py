"""What a run asks of a sampler, and what a sampler says of itself."""

from abc import abstractmethod
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal, Protocol, get_args, get_origin, get_type_hints

import jax
from annotated_types import Ge, Gt, Lt
from jax.sharding import Mesh

from gmm_bayes._validation import check_choice, check_integer, check_probability
from gmm_bayes.core.unconstrained import Space
from gmm_bayes.errors import MissingDependencyError
from gmm_bayes.inference.sampling.problem import Draws, Problem
from gmm_bayes.machine.memory import ProblemSize

__all__ = ["AtLeast0", "AtLeast1", "AtLeast2", "Probability", "Sampler"]

# Types of settings, with their bounds: what a sampler checks, and what a job file may hold.
AtLeast0 = Annotated[int, Ge(0)]
AtLeast1 = Annotated[int, Ge(1)]
AtLeast2 = Annotated[int, Ge(2)]
Probability = Annotated[float, Gt(0), Lt(1)]


class Sampler(Protocol):
    """Frozen settings that know how to draw from the posterior of a problem.

    A sampler is a frozen dataclass that inherits from this, and says only what is not as below. Its
    fields are its settings: those whose types are of this module, of a `Literal` or `bool` are
    checked when one is made, and a job file has them as keys.

    Attributes
    ----------
    num_samples, num_chains : int
        Draws kept, of each chain, and chains.
    num_warmup : int, optional
        Draws that are not kept; None is as many as it needs.
    needs : tuple of str, optional
        A package that must be installed, and the extra of ours that brings it.
    warms_up : bool
        Whether it makes draws that are not kept.
    can_resume : bool
        Whether a run can be kept on disk, and go on.
    can_batch : bool
        Whether `inference.batch` has a program of it for many data sets.
    judged_by : {"chains", "weights"}
        Whether draws are chains that must agree, or weighted by importance: then the facts of a run
        have `pareto_k` and `importance_ess`.
    num_superchains : int, optional
        Groups of chains that begin at one point each; None where each has a start of its own.
    longest_trajectory : int, optional
        Steps at which a trajectory is cut, whether or not it has turned.
    rejected_share : float
        Share of draws, when all is well, that repeat the one before.
    crosses_modes : bool
        Whether chains go from mode to mode of the posterior by themselves.
    """

    num_samples: int
    num_chains: int
    num_warmup: int | None = None
    num_superchains: int | None = None

    needs: ClassVar[tuple[str, str] | None] = None
    warms_up: ClassVar[bool] = False
    can_resume: ClassVar[bool] = False
    can_batch: ClassVar[bool] = False
    judged_by: ClassVar[Literal["chains", "weights"]] = "chains"

    @property
    def kind(self) -> str:
        """The name under which a result's file knows it."""
        return type(self).__name__

    @property
    def longest_trajectory(self) -> int | None:
        """Steps at which a trajectory is cut; None where none is."""
        return None

    @property
    def rejected_share(self) -> float:
        """Share of draws, when all is well, that repeat the one before."""
        return 0.0

    @property
    def crosses_modes(self) -> bool:
        """Whether chains go from mode to mode of the posterior by themselves."""
        return False

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            if name in getattr(self, "__dataclass_fields__", ()):
                object.__setattr__(self, name, _checked(getattr(self, name), name, hint))

    def check_installed(self) -> None:
        """Raise where a package is missing.

        Raises
        ------
        MissingDependencyError
        """
        if self.needs is not None and find_spec(self.needs[0]) is None:
            package, extra = self.needs
            raise MissingDependencyError(
                f"the sampler {self.kind} needs {package}; install it with pip install "
                f"'gmm-bayes[{extra}]', or take sampler=NUTS()"
            )

    def size(self, n_obs: int, space: Space) -> ProblemSize:
        """What the memory of a run depends on."""
        return ProblemSize.of(n_obs, space, self.num_chains, self.num_samples)

    def check_mesh(self, mesh: Mesh | None) -> None:
        """Raise ValueError unless it can run on a mesh of devices."""
        if mesh is not None:
            raise ValueError(f"{self.kind} runs on one device, got a mesh; take sampler=NUTS()")

    def groupings(self, device: jax.Device, mesh: Mesh | None) -> Iterator[tuple[int, int]]:
        """Chains in one program, and programs at once: the fastest first, the smallest last."""
        yield self.num_chains, 1

    @abstractmethod
    def run(self, problem: Problem, *, progress: bool = False) -> Draws:
        """Draw from the posterior of a problem, with a bar if `progress`."""


def _checked(value: Any, name: str, hint: Any) -> Any:
    """Return a setting that is of its type and within its bounds."""
    if type(None) in get_args(hint):
        if value is None:
            return None
        (hint,) = (one for one in get_args(hint) if one is not type(None))
    if get_origin(hint) is Literal:
        return check_choice(value, name, get_args(hint))
    if hint is bool and not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    if hint == Probability:
        return check_probability(value, name)
    bounds: list[Any] = [b.ge for b in getattr(hint, "__metadata__", ()) if isinstance(b, Ge)]
    return check_integer(value, name, bounds[0]) if bounds else value
