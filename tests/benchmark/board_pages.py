"""Pages built from fixture frames, among them one whose every name is hostile, and how to read one."""

from html.parser import HTMLParser
from pathlib import Path

import pandas as pd

from benchmark import leaderboard
from tests.benchmark.board_frames import make_frame

HOSTILE = {
    "ssql-r10": "<script>window.hurt=1</script>\"'&lt;b&gt;",
    "cq-c-r10": "</script><img src=x onerror=window.hurt=2> %{x} <b>bold</b> $x$ {{ 7*7 }}",
    "simclr-r10": "long" * 75,
    "simsiam-r10": "\u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd",
    "untrained": "a | b & c_d {e} ~ ^ \\ #1 100%",
}
TABLE_11 = [{"paper": "SSQL", "table": "Table 11"}]


def hostile_frame() -> pd.DataFrame:
    """Return a suite of single seeds in which every text of a user's may hold mark-up."""
    frame = make_frame(n_seeds=1)
    frame["checkpoint"] = frame["checkpoint"].replace(HOSTILE)
    for column in ("method", "architecture", "dataset", "protocol", "engine", "policy"):
        frame[column] = frame[column] + "<i>\"'&amp;"
    frame["reason"] = frame["reason"].replace("", "x") + "</td></table><script>hurt=3</script>"
    return frame


def build_page(folder: Path, frame: pd.DataFrame, *, reported=()) -> Path:
    """Build the board of a frame instead of a folder's result files."""
    folder.mkdir(parents=True, exist_ok=True)
    load, leaderboard.load_frame = leaderboard.load_frame, lambda _: frame
    try:
        return leaderboard.build(folder, reported=reported)
    finally:
        leaderboard.load_frame = load


class Page(HTMLParser):
    """A page's tables (rows of cell texts by the table's id), tags, attributes and scripts."""

    def __init__(self, path: Path):
        super().__init__(convert_charrefs=True)
        self.text = path.read_text(encoding="utf-8")
        self.tables: dict[str, list[list[str]]] = {}
        self.cells: dict[str, list[list[dict[str, str]]]] = {}
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self._table = None
        self._in_cell = False
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag == "table":
            self._table = attributes.get("id", f"table {len(self.tables)}")
            self.tables[self._table], self.cells[self._table] = [], []
        elif tag == "tr":
            self.tables[self._table].append([])
            self.cells[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")
            self.cells[self._table][-1].append(attributes)
            self._in_cell = True
        elif tag == "script":
            self.scripts.append((attributes, ""))

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data):
        if self.lasttag == "script" and self.scripts:
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        if self._in_cell:
            self.tables[self._table][-1][-1] += data
