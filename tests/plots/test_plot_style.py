"""The look of components and rows."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from gmm_bayes.plots import style


def test_no_two_of_many_components_look_the_same() -> None:
    looks = {style.component_style(k) for k in range(4 * len(style.COLOURS))}
    assert len(looks) == 4 * len(style.COLOURS)


def test_the_first_eight_differ_by_colour_alone() -> None:
    first = [style.component_style(k) for k in range(8)]
    assert len({look.colour for look in first}) == 8
    assert {look.marker for look in first} == {"o"}
    assert style.component_style(8) == (style.COLOURS[0], "s", "--")


def test_rows_fade_to_grey() -> None:
    colours = style.row_colours(np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.75, 0.25]]))
    blue, orange, grey = (
        np.array(to_rgb(c)) for c in (style.COLOURS[0], style.COLOURS[1], style.UNSURE_COLOUR)
    )
    np.testing.assert_allclose(colours, [blue, orange, grey, (blue + grey) / 2])


@pytest.mark.parametrize(
    ("row", "sure"), [([1.0], 1.0), ([0.5, 0.5], 0.0), ([0.25, 0.25, 0.5], 0.25)]
)
def test_sureness(row: list[float], sure: float) -> None:
    np.testing.assert_allclose(style.sureness(np.array([row])), [sure])
