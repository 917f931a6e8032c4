"""The picture in the README is the truth: imports point down, borders hold, names live once."""

import ast
import re
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


def imported(path):
    """The files of the package that one imports, for its types or lazily too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            place = PACKAGE.parent / name.replace(".", "/")
            # The package itself, which only looks names up, is no room.
            for file in (place.with_suffix(".py"), place / "__init__.py"):
                if file in SOURCES and file != PACKAGE / "__init__.py":
                    found.add(file)
    return found - {path}


def test_there_is_no_circle():
    arrows = {path: imported(path) for path in SOURCES}
    assert sum(map(len, arrows.values())) > 500
    while leaves := [path for path, targets in arrows.items() if not targets & arrows.keys()]:
        for path in leaves:
            del arrows[path]
    assert not arrows, sorted(str(path.relative_to(PACKAGE)) for path in arrows)


FOLDERS = sorted({path.parent for path in SOURCES})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: str(p.relative_to(PACKAGE.parent)))
def test_folders_are_small(folder):
    """At most 14 rooms, on at most 8 floors: a room is one higher than what it imports there."""

    def room(path):
        inside = path.relative_to(folder).parts
        return inside[0] if inside[0] != "__init__.py" else None

    rooms = {}
    for path in SOURCES:
        if folder in path.parents and room(path):
            below = {room(other) for other in imported(path) if folder in other.parents}
            rooms.setdefault(room(path), set()).update(below - {room(path), None})
    assert len(rooms) <= (14 if folder != PACKAGE else 20)
    floors = {}

    def floor(name):
        if name not in floors:
            floors[name] = 1 + max((floor(other) for other in rooms[name]), default=0)
        return floors[name]

    assert max(map(floor, rooms), default=0) <= (8 if folder != PACKAGE else 13)


def test_the_picture_in_the_readme_names_every_folder_of_inference():
    readme = (PACKAGE.parent / "README.md").read_text()
    picture = readme.partition("## How it is built")[2].split("```")[1]
    inside = {folder.name for folder in FOLDERS if PACKAGE / "inference" in folder.parents}
    assert {f"{name}/" for name in inside} <= set(re.findall(r"\w+/", picture))
    assert "..." not in picture
    assert "\N{HORIZONTAL ELLIPSIS}" not in picture


def test_no_room_called_utils():
    assert not {p.stem for p in SOURCES} & {"utils", "helpers", "misc", "common"}
