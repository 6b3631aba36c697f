"""From folded results to the text of index.html."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmark import adaptive
from benchmark.boards import make_boards, make_reported, missing_jobs
from benchmark.comparability import MEASURED, precision_rank
from benchmark.page import rows
from benchmark.page.curves import make_figures
from benchmark.page.libraries import datatables_module, plotly_script
from benchmark.page.policies import describe_policies
from benchmark.reference import PAPERS

_HERE = Path(__file__).parent
_ROW_FACETS = {
    "dataset": "Data set",
    "protocol": "Protocol",
    "training": "Training",
    "metric": "Metric",
    "method": "Method",
    "architecture": "Architecture",
}
_ADAPTIVE_FACETS = {
    "dataset": "Data set",
    "checkpoint": "Checkpoint",
    "architecture": "Architecture",
    "method": "Method",
    "metric": "Metric",
}
_DETECTION_FACETS = {
    "dataset": "Data set",
    "protocol": "Detector",
    "engine": "Engine",
    "training": "Training",
    "precision": "Precision",
    "method": "Method",
}
_REPORTED_FACETS = {"paper": "Paper", "table": "Table", "dataset": "Data set", "metric": "Metric"}


def render(frame: pd.DataFrame, folded: pd.DataFrame, *, csv: str) -> str:
    """Return the page.

    Args:
        frame: normalized results, reported rows among them.
        folded: the same, folded over seeds.
        csv: the text behind the download button.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("index.html.j2")
    # Our own files and the libraries go in as they are; everything from a result file is escaped.
    return template.render(
        **_content(frame, folded),
        style=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
        script=Markup((_HERE / "page.js").read_text(encoding="utf-8")),
        datatables=Markup(datatables_module()),
        plotly=Markup(plotly_script()),
        csv=b64encode(csv.encode("utf-8")).decode("ascii"),
    )


def _content(frame: pd.DataFrame, folded: pd.DataFrame) -> dict[str, Any]:
    boards = make_boards(folded)
    tables = {
        "classification": _classification(boards),
        "adaptive": _adaptive(folded),
        "detection": _detection(boards),
        "reported": _reported(folded),
    }
    return {
        "facts": _facts(frame),
        "figures": make_figures(boards),
        "missing": missing_jobs(frame),
        "groups": boards,
        "policies": describe_policies(frame),
        "papers": PAPERS,
        **tables,
    }


def _classification(boards: list) -> dict[str, Any]:
    boards = [board for board in boards if board.facts["task"] == "classification"]
    precisions = sorted({p for board in boards for p in board.precisions}, key=precision_rank)
    found = rows.classification_rows(boards, precisions)
    return {"columns": precisions, "rows": found, "facets": rows.facets(found, _ROW_FACETS)}


def _adaptive(folded: pd.DataFrame) -> dict[str, Any]:
    networks = adaptive.make_adaptive(folded)
    precisions = adaptive.columns(networks)
    found = rows.adaptive_rows(networks, precisions)
    return {
        "columns": precisions,
        "rows": found,
        "facets": rows.facets(found, _ADAPTIVE_FACETS),
        "blanks": adaptive.blanks(networks),
    }


def _detection(boards: list) -> dict[str, Any]:
    boards = [board for board in boards if board.facts["task"] == "detection"]
    metrics = sorted({m for board in boards for m in board.metrics}, key=lambda m: (len(m), m))
    found = rows.detection_rows(boards, metrics)
    return {"columns": metrics, "rows": found, "facets": rows.facets(found, _DETECTION_FACETS)}


def _reported(folded: pd.DataFrame) -> dict[str, Any]:
    lines = make_reported(folded)
    precisions = sorted({p for line in lines for p, _ in line.cells}, key=precision_rank)
    found = rows.reported_rows(lines, precisions)
    return {"columns": precisions, "rows": found, "facets": rows.facets(found, _REPORTED_FACETS)}


def _facts(frame: pd.DataFrame) -> dict[str, Any]:
    """What was measured: names in a stable order, and counts of jobs."""
    measured = frame[frame["source"] == MEASURED]
    scores = measured[(measured["status"] == "completed") & (measured["task"] != "pretrain")]
    status = measured.groupby("job_id")["status"].first()
    seeds = sorted({int(seed) for seed in scores["seed"].dropna()})
    return {
        "checkpoints": sorted(set(scores["checkpoint"])),
        "datasets": sorted(set(scores["dataset"])),
        "precisions": sorted(set(scores["precision"]), key=precision_rank),
        "seeds": [str(seed) for seed in seeds],
        "jobs": {name: int((status == name).sum()) for name in ("completed", "failed", "skipped")},
    }
