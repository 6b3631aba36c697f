"""Pages built from fixture frames, among them one whose every name is hostile, and how to read one."""

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd

from lowbit.benchmark.leaderboard import build
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
    load, build.load_frame = build.load_frame, lambda _: frame
    try:
        return build.build(folder, reported=reported)
    finally:
        build.load_frame = load


class Page(HTMLParser):
    """A page's tags with their attributes, its own text without what is packed, and its data."""

    def __init__(self, path: Path):
        super().__init__(convert_charrefs=True)
        self.text = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(self.text)
        self.close()
        packed = dict(
            re.findall(r'<script type="application/octet-stream" id="(\w+)">(.*?)<', self.text)
        )
        self.plain = re.sub(r'(octet-stream" id="\w+">)[^<]*', r"\1", self.text)
        self.data = json.loads(gzip.decompress(base64.b64decode(packed["data"])))
        self.sections = self.data["sections"]

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def cell(self, row, column, section="classification"):
        """Return a cell of a section's row by the names of its parts."""
        content = self.sections[section]
        return dict(
            zip(content["cell"], row["cells"][content["columns"].index(column)], strict=False)
        )
