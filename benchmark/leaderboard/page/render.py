"""Render index.html from a runs folder.

The page is a frame of static text, one packed JSON object and the scripts that draw it. Texts of results
travel in that object alone and become text nodes: none of them is ever part of the page's own HTML.
"""

import json
import math
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from gzip import compress
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from lowbit.benchmark.leaderboard.page import (
    checkpoints,
    claims,
    coverage,
    curves,
    reproduction,
    table_sections,
)
from lowbit.benchmark.leaderboard.page.source import Source

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: its id, and the name of its macro in `sections.html.j2` and of what draws it in `js/`.
        label: what the navigation calls it.
        content: makes its JSON content; where that is empty the section is left out.
    """

    name: str
    label: str
    content: Callable[[Source], dict[str, Any]]


SECTIONS = (
    Section("methods", "Methods", table_sections.methods),
    Section("averages", "Averages", table_sections.averages),
    Section("classification", "Classification", table_sections.classification),
    Section("adaptive", "Adaptive bit-widths", table_sections.adaptive),
    Section("detection", "Detection", table_sections.detection),
    Section("deployment", "Integer inference", table_sections.deployment),
    Section("curves", "Curves", curves.content),
    Section("checkpoints", "Checkpoints", checkpoints.content),
    Section("coverage", "Coverage", coverage.content),
    Section("claims", "Claims", claims.content),
    Section("reproduction", "Reproduction", reproduction.content),
    Section("reported", "Reported", table_sections.reported),
    Section("notes", "How to read this", table_sections.notes),
)
_STYLES = ("style.css", "sections.css")
# In this order: each uses what those before it define.
_SCRIPTS = (
    "core",
    "plot",
    "tables",
    "masthead",
    "board",
    "fronts",
    "curves",
    "deployment",
    "checkpoints",
    "coverage",
    "claims",
    "reproduction",
)
_TEMPLATES = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(source: Source) -> str:
    """Return the page of a runs folder; the same results give the same text."""
    content = {section.name: section.content(source) for section in SECTIONS}
    shown = [section for section in SECTIONS if content[section.name]]
    about = table_sections.overview(source)
    data = {"overview": about, "sections": {s.name: content[s.name] for s in shown}}
    # Our own files and the libraries go in as they are; everything from a result file is packed.
    return _TEMPLATES.get_template("index.html.j2").render(
        sections=shown,
        content=content,
        overview=about,
        style=Markup("\n".join(map(_read, _STYLES))),
        script=Markup("\n".join(_read(f"js/{name}.js") for name in _SCRIPTS)),
        data=pack(to_json(data)),
        **_libraries(),
    )


def pack(text: str) -> str:
    """Return text as base64 of gzip, without a time in it."""
    return b64encode(compress(text.encode("utf-8"), compresslevel=6, mtime=0)).decode("ascii")


def to_json(value: Any) -> str:
    """Return JSON without blanks; a number that is not finite is null."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


@cache  # packing them takes as long as all the rest of a small page
def _libraries() -> dict[str, str]:
    """Return the packed libraries that every page has.

    DataTables is an ES module whose default export it is: what itables embeds in notebooks.
    """
    datatables = files("itables").joinpath("html", "dt_bundle.js").read_text(encoding="utf-8")
    return {"datatables": pack(datatables), "plotly": pack(get_plotlyjs())}
