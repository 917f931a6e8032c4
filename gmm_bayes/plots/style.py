"""One fixed colour, marker and line style for each component, in every picture."""

from typing import Final, NamedTuple

import numpy as np
from matplotlib.colors import to_rgb

__all__ = [
    "ANOMALY_STYLES",
    "COLOURS",
    "DATA_COLOUR",
    "DENSITY_MAP",
    "LINESTYLES",
    "MARKERS",
    "NORMAL",
    "STRANGE",
    "UNSURE",
    "UNSURE_COLOUR",
    "AnomalyStyle",
    "ComponentStyle",
    "component_style",
    "row_colours",
    "sureness",
]

# M. Okabe, K. Ito (2008), Color universal design: told apart with every common colour blindness.
# The palest comes late, because thin lines of it are hard to see on white.
COLOURS: Final = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#000000",
    "#F0E442",
)
# Components 8 ... 15 repeat the colours with the second marker and line style, and so on.
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
LINESTYLES: Final = ("-", "--", ":", "-.")

UNSURE_COLOUR: Final = "#C8C8C8"
DATA_COLOUR: Final = "#4D4D4D"
# Runs evenly from dark to bright, so that it reads the same in grey and to colour-blind eyes.
DENSITY_MAP: Final = "cividis"


class ComponentStyle(NamedTuple):
    """How one component looks: names of a colour, a marker and a line style of matplotlib."""

    colour: str
    marker: str
    linestyle: str


class AnomalyStyle(NamedTuple):
    """How one kind of row looks: colours, a marker of matplotlib, its size in points."""

    colour: str
    edge: str
    marker: str
    size: float
    alpha: float


NORMAL, UNSURE, STRANGE = "normal", "unsure", "strange"
# In the order of drawing. Shapes and sizes differ too, for eyes and printers without colours.
ANOMALY_STYLES: Final = {
    NORMAL: AnomalyStyle(DATA_COLOUR, "none", "o", 3.0, 0.6),
    UNSURE: AnomalyStyle("#F0E442", "black", "D", 5.0, 1.0),
    STRANGE: AnomalyStyle("#D55E00", "black", "X", 7.0, 1.0),
}


def component_style(component: int) -> ComponentStyle:
    """Return the look of a component, counted from 0; the same in every picture."""
    colour, cycle = component % len(COLOURS), component // len(COLOURS)
    return ComponentStyle(
        COLOURS[colour], MARKERS[cycle % len(MARKERS)], LINESTYLES[cycle % len(LINESTYLES)]
    )


def sureness(responsibilities: np.ndarray) -> np.ndarray:
    """How sure the most probable component is: 0 when all are equally probable, 1 when certain.

    Parameters
    ----------
    responsibilities : ndarray, shape (n_obs, n_components)

    Returns
    -------
    ndarray, shape (n_obs,)
    """
    n_components = responsibilities.shape[1]
    if n_components == 1:
        return np.ones(len(responsibilities))
    chance = 1 / n_components
    return np.clip((responsibilities.max(axis=1) - chance) / (1 - chance), 0, 1)


def row_colours(responsibilities: np.ndarray) -> np.ndarray:
    """Colour of each row: its most probable component's, fading to grey as that gets unsure.

    Parameters
    ----------
    responsibilities : ndarray, shape (n_obs, n_components)

    Returns
    -------
    ndarray, shape (n_obs, 3)
        Red, green and blue in 0 ... 1.
    """
    palette = np.array(
        [to_rgb(component_style(k).colour) for k in range(responsibilities.shape[1])]
    )
    share = sureness(responsibilities)[:, None]
    # Grey, and not a blend of components: blue and yellow would make a third component's green.
    sure = palette[responsibilities.argmax(axis=1)]
    return share * sure + (1 - share) * np.array(to_rgb(UNSURE_COLOUR))
