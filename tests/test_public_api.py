"""Every public name is there, is documented with its shapes, and its examples run."""

import ast
import doctest
import inspect
from importlib import import_module, metadata
from pathlib import Path

import pytest
from numpydoc.validate import validate

import gmm_bayes as gb

NAMES = [
    *(n for n in gb.__all__ if callable(getattr(gb, n)) and n not in ("__version__",)),
    *(f"plots.{n}" for n in gb.plots.__all__),
    *(f"datasets.{n}" for n in gb.datasets.__all__ if n != "LOADERS"),
    "GMMFit.save",
    "Priors.fixed",
    "Priors.summary",
]
# Where each is at home, by the stub that the package itself reads.
HOMES = {
    alias.name: f"gmm_bayes.{node.module or alias.name}"
    for node in ast.parse(Path(gb.__file__).with_suffix(".pyi").read_text()).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}
# Missing docstring, summary, parameters, returns; unknown or undescribed parameters.
REQUIRED = {"GL08", "SS01", "PR01", "PR02", "PR03", "RT01"}
# Where no array goes in or out.
WITHOUT_SHAPES = {
    "ChEES",
    "NUTS",
    "load",
    "GMMFit.save",
    "Diagnosis",
    "Evidence",
    "plots.plot_density",
    "plots.plot_responsibilities",
}


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_are_numpydoc_with_shapes(name):
    home, _, attribute = name.rpartition(".")
    owner = getattr(gb, home) if home else gb
    target = getattr(owner, attribute)
    path = f"{target.__module__}.{target.__qualname__}"
    errors = [(code, text) for code, text in validate(path)["errors"] if code in REQUIRED]
    if inspect.isclass(target):
        # Fields of a record are described as attributes.
        errors = [e for e in errors if e[0] not in ("PR01", "RT01")]
    assert not errors
    words = inspect.getdoc(target)
    if name not in WITHOUT_SHAPES:
        assert any(word in words for word in ("shape", "dims", "Dims", "(obs")), "no shapes"


def test_all_is_complete_and_lazy_names_resolve():
    assert sorted(gb.__all__) == sorted([*HOMES, "__version__"])
    for name in gb.__all__:
        assert getattr(gb, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        gb.fitt  # noqa: B018


def test_one_version():
    assert metadata.version("gmm_bayes") == gb.__version__


MODULES = sorted(set(HOMES.values()))


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.filterwarnings("ignore::gmm_bayes.errors.ConvergenceWarning")
def test_examples_run(module):
    failed, _ = doctest.testmod(
        import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    )
    assert failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    examples = [t for m in MODULES for t in finder.find(import_module(m)) if t.examples]
    assert len(examples) >= 2
