"""Common style of figures: colours, line styles, panels."""

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

# Petroff 2021 ("Accessible color sequences for data visualization"): ten colours that stay distinct
# under the common colour-vision deficiencies.
COLOURS = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#717581",
    "#b9ac70",
    "#92dadd",
)
LINES = ("-", "--", "-.", ":")  # paired with the colours, so that curves also differ in grayscale
MUTED = "#717581"

_STYLE = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def panels(
    rows: int, columns: int, *, width: float = 10.0, height: float = 3.5, **options
) -> tuple[Figure, ndarray]:
    """Return a figure and its axes (rows, columns).

    Args:
        rows, columns: numbers of panels.
        width: of the figure, inches.
        height: of each row, inches.
        options: of `Figure.subplots`.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height * rows), layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False, **options)


def legend_above(figure: Figure, axes: Axes) -> None:
    """Put one legend for all panels above them, with the entries of `axes`."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=min(len(labels), 5), frameon=False
    )
