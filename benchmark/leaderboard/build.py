"""The leaderboard: one HTML file that opens offline, and CSV, Markdown and LaTeX beside it.

A pure function of the result files and of which published numbers are shown: no clock, no machine,
so that deleting the folder and building it again gives the same bytes.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lowbit.benchmark.leaderboard.csv_text import to_csv
from lowbit.benchmark.leaderboard.page.render import render
from lowbit.benchmark.leaderboard.page.source import Source
from lowbit.benchmark.leaderboard.reproduction import to_frame
from lowbit.benchmark.leaderboard.tables import Tables
from lowbit.benchmark.leaderboard.text_formats import methods_to_csv, to_latex, to_markdown
from lowbit.benchmark.leaderboard.text_formats import to_csv as board_csv
from lowbit.benchmark.planning.plan_file import Selection, planned_suites, remembered
from lowbit.benchmark.published import reported_rows
from lowbit.benchmark.results.comparability import normalize
from lowbit.benchmark.results.frame import load_frame
from lowbit.benchmark.statistics.answered_images import AnsweredImages
from lowbit.common.atomic_file import write_text

_WRITTEN = {"csv": board_csv, "md": to_markdown, "tex": to_latex}
FORMATS = tuple(_WRITTEN)

_logger = logging.getLogger(__name__)


def build(runs_dir: Path, *, reported: Sequence[Selection] | None = None) -> Path:
    """Write RUNS_DIR/leaderboard/{index.html, results.{csv,md,tex}, methods.csv, reproduction.csv}.

    Args:
        runs_dir: where the jobs' folders are; one without results gives a board that says so.
        reported: published numbers to show beside the measured, see `lowbit.benchmark.published`; None
            shows those of the suites that ran in the folder.

    Returns:
        The path of index.html. Files are replaced one by one, each whole or not at all.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: `reported` selects nothing.
    """
    return build_from(board_frame(runs_dir, reported=reported), runs_dir)


def build_from(frame: pd.DataFrame, runs_dir: Path) -> Path:
    """Write the board of normalized results; see `build`."""
    tables = Tables(frame, planned_suites(runs_dir), AnsweredImages(runs_dir))
    folder = Path(runs_dir) / "leaderboard"
    folder.mkdir(exist_ok=True)
    for extension, written in _WRITTEN.items():
        write_text(folder / f"results.{extension}", written(tables))
    write_text(folder / "methods.csv", methods_to_csv(tables))
    reproduced = to_frame(tables.reproduced)
    write_text(folder / "reproduction.csv", to_csv(reproduced))
    write_text(folder / "index.html", render(Source(tables, Path(runs_dir))))
    _logger.info("board of %d numbers: %s", int(tables.folded["value"].notna().sum()), folder)
    return folder / "index.html"


def export(runs_dir: Path, format: str, *, reported: Sequence[Selection] | None = None) -> str:
    """Return the board as text in one of `FORMATS`."""
    frame = board_frame(runs_dir, reported=reported)
    return _WRITTEN[format](Tables(frame, answers=AnsweredImages(runs_dir)))


def board_frame(runs_dir: Path, *, reported: Sequence[Selection] | None = None) -> pd.DataFrame:
    """Return the normalized results under `runs_dir`, the reported rows after them."""
    runs_dir = Path(runs_dir)
    if not runs_dir.is_dir():
        raise FileNotFoundError(
            f"there is no folder {runs_dir}; no board was made. Pass the folder a suite wrote its runs "
            "to (--runs-dir)."
        )
    frames = [normalize(load_frame(runs_dir))]
    if reported is None:
        reported = remembered(runs_dir)
    if reported:
        frames.append(normalize(reported_rows(reported)))
    return pd.concat(frames, ignore_index=True)
