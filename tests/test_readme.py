"""The README's code runs, its commands are those of CI, and the names in it exist."""

import re
from pathlib import Path

import pytest

import gmm_bayes as gb

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


# ArviZ's own plots use what matplotlib is about to drop.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*:UserWarning:arviz")
def test_the_sixty_second_example_runs(tmp_path, monkeypatch):
    """All Python blocks, in order, in one namespace."""
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    names = {}
    code = blocks("python")
    assert code
    for block in code:
        exec(compile(block, "README.md", "exec"), names)
    plt.close("all")
    assert isinstance(names["fit"], gb.GMMFit)
    assert gb.diagnose(names["fit"]).ok


def test_there_are_two_commands():
    setup = [c.strip() for c in blocks("bash") if "venv" in c]
    assert [c.count("\n") for c in setup] == [0, 0]
    assert "gmm-bayes run configs/quickstart.toml" in setup[0]
    assert setup[1].endswith("pytest")


def test_names_in_the_tables_exist():
    names = set(re.findall(r"`gb\.([a-z_A-Z.]+)\(", README))
    assert len(names) > 8
    for name in names:
        target = gb
        for part in name.split("."):
            target = getattr(target, part)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_somewhere(path):
    assert (ROOT / path).exists()


def test_every_folder_of_the_picture_is_there():
    rooms = re.findall(r"\b([a-z_]+)/", README[README.index("## How it is built") :])
    assert {"plots", "posterior", "inference", "model", "core"} <= set(rooms)
    for room in {"plots", "posterior", "inference", "model", "core"}:
        assert (ROOT / "gmm_bayes" / room).is_dir()
