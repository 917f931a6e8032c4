"""The picture in the README is the truth: imports point down, borders hold, names live once."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gmm_bayes
from gmm_bayes._vocabulary import DIAG, FULL, SPHERICAL, TIED

PACKAGE = Path(gmm_bayes.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_import_contracts():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_changes_nothing_and_loads_little():
    code = (
        "import sys, gmm_bayes; gmm_bayes.__version__\n"
        "heavy = {'jax', 'numpyro', 'arviz', 'matplotlib', 'sklearn', 'pandas'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import jax; before = jax.config.values.copy()\n"
        "from gmm_bayes import fit, plots, responsibilities, datasets\n"
        "assert jax.config.values == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_table_knows_the_structures(path):
    """No comparison with a covariance type outside core/covariance.py."""
    if path.name in ("covariance.py", "_vocabulary.py"):
        return
    names = {FULL, TIED, DIAG, SPHERICAL}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            said = {side.value for side in sides if isinstance(side, ast.Constant)}
            known = {side.id for side in sides if isinstance(side, ast.Name)}
            assert not said & names, f"line {node.lineno}"
            assert not known & {"FULL", "TIED", "DIAG", "SPHERICAL"}, f"line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_are_small(path):
    tree = ast.parse(path.read_text())
    assert len(path.read_text().splitlines()) <= 400
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node, clean=False) or ""
            length = node.end_lineno - node.lineno + 1 - documented.count("\n")
            assert length <= 62, f"{node.name} has {length} lines"


def test_no_room_called_utils():
    assert not {p.stem for p in SOURCES} & {"utils", "helpers", "misc", "common"}
