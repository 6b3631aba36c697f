"""Plot a comparison: the paired difference of every data set and precision, with its interval."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lowbit.benchmark.results.comparability import metric_name, precision_rank
from lowbit.benchmark.statistics.comparison import Difference, Line
from lowbit.common.atomic_file import atomic, write_text

FORMATS = (".svg", ".png", ".pdf", ".html")
# Colours told apart by every kind of colour vision (Okabe and Ito); a tie is hollow besides.
_COLOURS = {"a": "#0072B2", "b": "#D55E00", "tie": "#666666", "untested": "#666666"}


@dataclass(frozen=True)
class _Point:
    row: str
    found: Difference
    mean: bool  # over the data sets, drawn as a diamond

    @property
    def told(self) -> bool:
        return self.found.outcome in ("a", "b")

    @property
    def interval(self) -> tuple[float, float]:
        """How far the interval reaches below and above; nothing where it is unknown."""
        if math.isnan(self.found.low):
            return 0.0, 0.0
        return self.found.mean - self.found.low, self.found.high - self.found.mean


def plot(lines: Sequence[Line], a: str, b: str, path: Path) -> None:
    """Draw a panel a precision, a row a setting, and below them their mean; write it to `path`.

    Of several metrics of a task the first is drawn: top-1, or AP.

    Raises:
        ValueError: the file's suffix is none of `FORMATS`.
    """
    if path.suffix not in FORMATS:
        raise ValueError(
            f"{path} has no supported suffix; nothing was drawn. Use one of {', '.join(FORMATS)}."
        )
    points = _points(lines)
    rows = list(dict.fromkeys(point.row for point in points))
    precisions = sorted({point.found.precision for point in points}, key=precision_rank)
    panels = [[p for p in points if p.found.precision == precision] for precision in precisions]
    draw = _plotly if path.suffix == ".html" else _matplotlib
    draw(panels, precisions, rows, (a, b), path)


def _points(lines: Sequence[Line]) -> list[_Point]:
    metrics: dict[
        bool, str
    ] = {}  # lines are in the order of tasks, and their main metrics come first
    points = []
    for line in lines:
        detection = line.overall.metric.startswith("AP")
        if metrics.setdefault(detection, line.overall.metric) != line.overall.metric:
            continue
        for setting in line.settings:
            points.append(_Point(_label(setting, setting.dataset), setting, mean=False))
        if len(line.settings) > 1:
            points.append(_Point(_label(line.overall, "mean"), line.overall, mean=True))
    return points


def _label(found: Difference, where: str) -> str:
    alike = "" if found.alike in ("-", "all") else f", {found.alike}"
    return f"{where}, {found.protocol}{alike}, {metric_name(found.metric)}"


def _matplotlib(panels, precisions, rows, names, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    a, b = (name.replace("$", r"\$") for name in names)  # no mathematics in a name
    place = {row: -at for at, row in enumerate(rows)}
    size = (3 + 2.1 * len(panels), 1.6 + 0.32 * len(rows))
    figure, axes = plt.subplots(
        1, len(panels), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for axis, points, precision in zip(axes[0], panels, precisions, strict=True):
        axis.axvline(0, color="black", linewidth=0.8)
        for point in points:
            colour = _COLOURS[point.found.outcome]
            axis.errorbar(
                point.found.mean,
                place[point.row],
                xerr=[[reach] for reach in point.interval],
                fmt="D" if point.mean else "o",
                color=colour,
                markerfacecolor=colour if point.told else "white",
                capsize=2.5,
                zorder=3,
            )
        axis.set_title(precision)
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_yticks(list(place.values()), [row.replace("$", r"\$") for row in rows])
    figure.supxlabel(f"{a} − {b}, percentage points, 95 % interval; filled: told apart (Holm, 5 %)")
    with matplotlib.rc_context({"svg.hashsalt": "lowbit-bench"}), atomic(path) as file:
        fixed = {
            ".svg": {"Date": None},
            ".pdf": {"CreationDate": None},
        }  # equal bytes for equal ones
        figure.savefig(file, format=path.suffix[1:], dpi=150, metadata=fixed.get(path.suffix))
    plt.close(figure)


def _plotly(panels, precisions, rows, names, path: Path) -> None:
    from plotly import graph_objects
    from plotly.subplots import make_subplots

    a, b = map(html.escape, names)
    figure = make_subplots(1, len(panels), shared_yaxes=True, subplot_titles=precisions)
    figure.update_xaxes(matches="x")
    for column, points in enumerate(panels, 1):
        figure.add_vline(0, line_width=1, row=1, col=column)
        for outcome, colour in _COLOURS.items():
            of = [point for point in points if point.found.outcome == outcome]
            symbols = ["diamond" if point.mean else "circle" for point in of]
            below, above = zip(*(point.interval for point in of), strict=True) if of else ((), ())
            figure.add_trace(
                graph_objects.Scatter(
                    x=[point.found.mean for point in of],
                    y=[html.escape(point.row) for point in of],
                    error_x={"array": above, "arrayminus": below, "symmetric": False},
                    mode="markers",
                    marker={
                        "color": colour,
                        "size": 9,
                        "symbol": [
                            s if p.told else f"{s}-open" for s, p in zip(symbols, of, strict=True)
                        ],
                    },
                    showlegend=False,
                    hovertemplate="%{x:+.2f}<extra>%{y}</extra>",
                ),
                row=1,
                col=column,
            )
    figure.update_yaxes(categoryorder="array", categoryarray=[html.escape(r) for r in rows[::-1]])
    title = f"{a} − {b}, percentage points, with 95 % intervals; filled: told apart (Holm, 5 %)"
    height = 160 + 32 * len(rows)
    figure.update_layout(title=title, template="plotly_white", height=height)
    write_text(path, figure.to_html(include_plotlyjs=True, div_id="comparison"))
