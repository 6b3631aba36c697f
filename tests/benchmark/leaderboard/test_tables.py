"""Each table is computed once a build, and every format shows the same cells."""

import csv
import io
import re

import pandas as pd
import pytest

from lowbit.benchmark.leaderboard import adaptive_bits, build, deployment, tables
from lowbit.benchmark.leaderboard.aggregation import dataset_means
from lowbit.common.text import number
from tests.benchmark.board_frames import failure, make_frame
from tests.benchmark.board_pages import TABLE_11, Page, build_page
from tests.benchmark.leaderboard.test_adaptive_bits import COQUANT, job

COMPUTED = [
    *((tables, name) for name in ("fold_seeds", "make_boards", "make_reported", "missing_jobs")),
    *((tables, name) for name in ("reproduce", "_adaptive", "_reported")),
    (adaptive_bits, "make_adaptive"),
    (dataset_means, "averages"),
    (deployment, "make_deployments"),
]
LAID_OUT = {"_classification": 8, "_detection": 1, "_average": 2}  # tables of `_everything`


def _everything() -> pd.DataFrame:
    """Return results with a table in every section."""
    rows = [
        one
        for method, values in (("individual", [95.0, 95.4]), ("coquant", [94.0, 94.6]))
        for seed, value in enumerate(values)
        for one in job(method, {"4w4a": value}, seed=seed, dataset="svhn")
    ]
    rows.append(failure("disk full", dataset="svhn", protocol="adaptive-adabits", **COQUANT))
    return pd.concat([make_frame(), pd.DataFrame(rows)], ignore_index=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the built folder and how often each function was called."""
    calls: dict[str, int] = {}

    def counted(name, function):
        def count(*args, **kwargs):
            calls[name] = calls.get(name, 0) + 1
            return function(*args, **kwargs)

        return count

    with pytest.MonkeyPatch.context() as patch:
        for module, name in [*COMPUTED, *((tables, name) for name in LAID_OUT)]:
            patch.setattr(module, name, counted(name, getattr(module, name)))
        page = build_page(tmp_path_factory.mktemp("built"), _everything(), reported=TABLE_11)
    return page.parent, calls


def test_a_build_computes_each_table_once(built):
    _, calls = built
    assert {name: calls[name] for _, name in COMPUTED} == {name: 1 for _, name in COMPUTED}


def test_a_build_lays_out_each_table_once(built):
    _, calls = built
    assert {name: calls[name] for name in LAID_OUT} == LAID_OUT


def test_an_export_computes_no_more_than_it_writes(tmp_path, monkeypatch):
    for name in ("make_boards", "make_reported", "missing_jobs", "reproduce"):
        monkeypatch.setattr(tables, name, lambda *_: pytest.fail("it is not part of the CSV"))
    monkeypatch.setattr(build, "load_frame", lambda _: make_frame(n_seeds=1))
    assert build.export(tmp_path, "csv", reported=()).count("\n") > 100


def _csv(folder) -> dict[tuple[str, ...], tuple[float, int, str]]:
    """Return value, seeds and rank by group, metric, precision, checkpoint and training."""
    text = (folder / "results.csv").read_text(encoding="utf-8")
    return {
        (r["group"], r["metric"], r["precision"], r["checkpoint"], r["training"]): (
            float(r["value"]),
            int(r["n_seeds"]),
            r["rank"],
        )
        for r in csv.DictReader(io.StringIO(text))
        if r["group"] != "-"
    }


def _page(folder) -> dict[tuple[str, ...], dict]:
    """Return the cells of the page by the same."""
    page = Page(folder / "index.html")
    found = {}
    for name in ("classification", "detection"):
        content = page.sections[name]
        for row in content["rows"]:
            for column, cell in zip(content["columns"], row["cells"], strict=True):
                if cell is None or len(cell) == 2:
                    continue
                cell = dict(zip(content["cell"], cell, strict=False))
                metric, precision = (
                    ("top1", column) if name == "classification" else (column, row["precision"])
                )
                key = (row["group"], metric, precision, row["checkpoint"], row["training"])
                found[key] = cell
    return found


def _markdown(folder) -> dict[tuple[str, ...], str]:
    """Return the cells of the boards in results.md by group, column, checkpoint and other labels."""
    found = {}
    text = (folder / "results.md").read_text(encoding="utf-8").replace("\\", "")
    for part in text.split("## ")[1:]:
        if (title := re.match(r"([A-Z]+)\. (Classification|Detection)", part)) is None:
            continue
        group, task = title.groups()
        lines = [line for line in part.splitlines() if line.startswith("| ")]
        header, _, *rows = ([x.strip() for x in line.strip("|").split("|")] for line in lines)
        for texts in rows:
            row = dict(zip(header, texts, strict=True))
            labels = 3 if task == "Classification" else 5
            for column in header[labels:]:
                metric, precision = ("top1", column) if labels == 3 else (column, row["precision"])
                key = (group, metric, precision, row["checkpoint"], row.get("training", "-"))
                found[key] = row[column]
    return {key: text for key, text in found.items() if text[:1].isdigit() or text[:1] == "*"}


def test_csv_markdown_and_page_show_the_same_cells(built):
    folder, _ = built
    lines, page, markdown = _csv(folder), _page(folder), _markdown(folder)
    assert len(lines) > 150
    assert lines.keys() == page.keys() == markdown.keys()
    for key, (value, n_seeds, rank) in lines.items():
        cell, text = page[key], markdown[key]
        assert (cell["value"], cell["seeds"]) == (value, n_seeds), key
        assert str(cell["rank"] or "") == rank, key
        assert float(cell["text"]) == pytest.approx(value, abs=0.0501), key
        assert re.sub(r"\*| <sup>\d+</sup>", "", text) == f"{cell['text']} ± {cell['sd']}", key
        assert text.startswith("*") == bool(cell["best"]), key


def test_a_mean_over_data_sets_is_one_number_on_page_and_in_markdown(built):
    folder, _ = built
    content = Page(folder / "index.html").sections["averages"]
    text = (folder / "results.md").read_text(encoding="utf-8").replace("\\", "")
    for row in content["rows"]:
        for packed in row["cells"]:
            cell = dict(zip(content["cell"], packed, strict=False))
            interval = f" [{number(cell['low'])}, {number(cell['high'])}]"
            assert cell["text"] + interval in text
