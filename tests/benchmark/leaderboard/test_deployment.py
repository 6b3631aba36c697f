"""Integer inference: what may be compared, the same numbers in every output, times and drops by hand."""

import csv
import io
import re

import numpy as np
import pytest

from lowbit.benchmark.leaderboard import build
from lowbit.benchmark.leaderboard.deployment import COLUMNS, make_deployments, score_columns
from lowbit.benchmark.leaderboard.tables import Tables
from lowbit.benchmark.results.comparability import normalize
from lowbit.benchmark.results.frame import load_frame
from tests.benchmark.board_pages import Page
from tests.benchmark.deployments import PLACES, some_numbers, write_deployment
from tests.benchmark.result_folders import submit, write

TITLE = (
    "Integer inference: digits at 32 px, linear, openvino 2026.4.1 on A CPU (R) (AVX512-VNNI AVX2), 2 cores, "
    "8-bit products exact"
)


def tables_of(runs):
    tables = Tables(normalize(load_frame(runs)))
    return make_deployments(tables.folded, tables.frame)


def rows_of(table):
    return {
        (row.facts["checkpoint"], row.facts["policy"], row.facts["precision"]): row
        for row in table.rows
    }


def timed(ratio, time, **more):
    """A network that takes a time, in ms, which is a ratio of its full precision."""
    found = {f"latency_ratio_{place}": (ratio, ratio - 0.1, ratio + 0.2) for place in PLACES}
    return found | {f"latency_{place}": time for place in PLACES} | {"top1": 90.0} | more


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of a board of two checkpoints, two policies and two runtimes; the numbers written."""
    runs, draw, written = tmp_path_factory.mktemp("runs"), np.random.default_rng(0), {}
    jobs = [
        (name, policy, engine)
        for name in ("one", "two")
        for policy in ("ssql", "lsq")
        for engine in ("openvino 2026.4.1", "onnxruntime 1.32.0")
    ]
    for number, (name, policy, engine) in enumerate(jobs):
        at = {precision: some_numbers(draw, precision) for precision in ("FP", "8w8a", "4w4a")}
        operations = {"FP": 4_000_000, "8w8a": 250_000, "4w4a": 62_500}
        write_deployment(
            runs,
            f"{number:012x}",
            at,
            name=name,
            policy=policy,
            engine=engine,
            operations=operations,
        )
        for precision, numbers in at.items():
            written[engine, name, policy, precision] = numbers
    return build.build(runs).parent, written


def test_the_csv_has_every_number_and_where_it_was_measured(built):
    folder, written = built
    text = (folder / "results.csv").read_text(encoding="utf-8")
    lines = [line for line in csv.DictReader(io.StringIO(text)) if line["task"] == "deployment"]
    assert len(lines) == sum(map(len, written.values()))
    for line in lines:
        key = tuple(line[name] for name in ("engine", "checkpoint", "policy", "precision"))
        number = written[key][line["metric"]]
        value, *ends = number if isinstance(number, tuple) else (number,)
        assert float(line["value"]) == pytest.approx(value, abs=1e-4)
        assert [line["ci_low"], line["ci_high"]] == [f"{end:.4f}" for end in ends] or not ends
        over = "rounds" if line["metric"].startswith("latency_ratio") else "images" if ends else ""
        assert line["interval"] == over
        assert (line["processor"], line["cores"], line["products"]) == ("A CPU (R)", "2", "exact")
        assert line["instruction_set"] == "AVX512-VNNI AVX2"
        assert (line["group"], line["rank"]) == ("-", "")


def expected_texts(numbers):
    """How a row of numbers is written, by column."""
    found = {"top-1 (%)": f"{numbers['top1'][0]:.1f}†", "integer layers": "19 of 20"}
    for metric, column in (("agreement", "agreement (%)"), ("noise_floor", "noise floor (%)")):
        found[column] = f"{numbers[metric]:.2f}"
    threads = {"1t": "1 thread", "allt": "all threads"}
    for place in PLACES:
        which, batch = place.split("_")
        ratio, low, high = numbers[f"latency_ratio_{place}"]
        found[f"latency {batch}, {threads[which]} (× FP)"] = f"{ratio:.2f} [{low:.2f}, {high:.2f}]"
    return found


@pytest.mark.parametrize("extension", ["md", "tex"])
def test_markdown_and_latex_have_a_table_a_runtime(built, extension):
    folder, written = built
    text = (folder / f"results.{extension}").read_text(encoding="utf-8")
    for old, new in {
        r"$\times$": "×", r"$^\dagger$": "†", r"\_": "_", r"\%": "%", "\\[": "[", "\\]": "]"
    }.items():  # fmt: skip
        text = text.replace(old, new)
    between = r"\n## " if extension == "md" else r"\\end\{table\}"
    parts = [part for part in re.split(between, text) if "Integer inference" in part]
    assert len(parts) == 2
    splitter = "|" if extension == "md" else "&"
    seen = 0
    for part in parts:
        (engine,) = {key[0] for key in written if key[0] in part}
        lines = [
            [
                cell.strip().removesuffix("\\\\").strip()
                for cell in line.strip().strip("|").split(splitter)
            ]
            for line in part.splitlines()
        ]
        (header,) = [line for line in lines if line[0] == "checkpoint"]
        for line in lines:
            row = dict(zip(header, line, strict=False))
            key = (engine, *(row.get(name) for name in ("checkpoint", "policy", "precision")))
            if key in written:
                seen += 1
                for column, expected in expected_texts(written[key]).items():
                    assert row[column] == expected
                assert float(row["size (MB)"]) == pytest.approx(
                    written[key]["file_bytes"] / 1e6, rel=5e-3
                )
                assert float(row["packed (MB)"]) == pytest.approx(
                    written[key]["packed_bytes"] / 1e6, rel=5e-3
                )
    assert seen == len(written)


def test_the_page_has_the_same_cells_and_what_its_fronts_are_over(built):
    folder, written = built
    content = Page(folder / "index.html").sections["deployment"]
    assert content["scores"] == ["top-1 (%)"] and len(content["tables"]) == 2
    assert len(content["rows"]) == len(written)
    for row in content["rows"]:
        numbers = written[row["engine"], row["checkpoint"], row["policy"], row["precision"]]
        assert content["tables"][row["table"]]["engine"] == row["engine"]
        cells = dict(zip(content["columns"], row["cells"], strict=True))
        for column, expected in expected_texts(numbers).items():
            text = dict(zip(content["cell"], cells[column], strict=False))
            assert text["text"] + text["marks"] == expected
            if column.startswith("latency"):
                assert [text["low"], text["high"]] == pytest.approx(
                    [text["value"] - 0.03, text["value"] + 0.05], abs=2e-4
                )
        assert row["file_bytes"] == numbers["file_bytes"]
        assert row["bit_operations"] == {"FP": 4e6, "8w8a": 25e4, "4w4a": 62500}[row["precision"]]
        assert row["time_1t_b8"] == pytest.approx(numbers["latency_1t_b8"])  # every FP takes 8 ms


@pytest.mark.parametrize(
    "other",
    [
        {"processor": "Another CPU"},
        {"instruction_set": "AVX2"},
        {"cores": 4},
        {"products": "saturate"},
        {"engine": "openvino 2026.5.0"},
        {"engine": "onnxruntime 1.32.0"},
        {"dataset": "cifar10"},
        {"protocol": "finetune"},
        {"image_size": 64},
    ],
)
def test_what_was_measured_elsewhere_is_never_in_one_table_nor_averaged(tmp_path, other):
    for number, changes in enumerate([{}, other]):
        at = {"FP": timed(1.0, 4.0), "8w8a": timed(0.5 + number / 10, 2.0)}
        write_deployment(tmp_path, f"{number:012x}", at, **changes)
    tables = tables_of(tmp_path)
    assert len(tables) == 2 and len({table.title for table in tables}) == 2
    values = {
        rows_of(table)["mine", "ssql", "8w8a"].cells["latency b1, 1 thread (× FP)"].value
        for table in tables
    }
    assert values == {0.5, 0.6}


def test_policies_of_one_machine_stand_in_one_table(tmp_path):
    for number, policy in enumerate(("ssql", "lsq")):
        write_deployment(tmp_path, f"{number:012x}", {"8w8a": timed(0.5, 2.0)}, policy=policy)
    (table,) = tables_of(tmp_path)
    assert table.title == TITLE
    assert set(rows_of(table)) == {("mine", "ssql", "8w8a"), ("mine", "lsq", "8w8a")}


def test_seeds_are_averaged_and_so_are_the_quartiles(tmp_path):
    for seed, (ratio, score) in enumerate([(0.4, 91.0), (0.6, 93.0)]):
        at = {"8w8a": timed(ratio, 2.0, top1=score, agreement=99.0 + seed)}
        write_deployment(tmp_path, f"{seed:012x}", at, seed=seed)
    (row,) = tables_of(tmp_path)[0].rows
    ratio = row.cells["latency b1, 1 thread (× FP)"]
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.5, 0.4, 0.7))
    assert (ratio.interval, ratio.printed) == ("rounds", "0.50 [0.40, 0.70]")
    score = row.cells["top-1 (%)"]
    assert (score.value, score.sd, score.n_seeds) == pytest.approx((92.0, np.sqrt(2), 2))
    agreement = row.cells["agreement (%)"]
    assert agreement.printed == "99.50" and np.isnan(agreement.low)


def test_a_drop_is_from_the_same_policy_at_full_precision(tmp_path):
    for number, (policy, full) in enumerate((("ssql", 95.0), ("lsq", 90.0))):
        at = {"FP": timed(1.0, 4.0, top1=full), "4w4a": timed(0.5, 2.0, top1=80.0)}
        write_deployment(tmp_path, f"{number:012x}", at, policy=policy)
    rows = rows_of(tables_of(tmp_path)[0])
    drops = {key: row.cells["top-1 (%)"].drop for key, row in rows.items()}
    assert drops["mine", "ssql", "4w4a"] == -15 and drops["mine", "lsq", "4w4a"] == -10
    assert np.isnan(drops["mine", "ssql", "FP"])


def test_a_busier_machine_moves_no_time(tmp_path):
    # The second job took three times as long throughout, the third is a smaller network.
    jobs = [("one", "resnet18", 4.0), ("two", "resnet18", 12.0), ("three", "resnet10_slim", 1.0)]
    for number, (name, architecture, full) in enumerate(jobs):
        at = {"FP": timed(1.0, full), "8w8a": timed(0.5, full / 2)}
        write_deployment(tmp_path, f"{number:012x}", at, name=name, architecture=architecture)
    rows = rows_of(tables_of(tmp_path)[0])
    times = {key[::2]: row.facts["time_allt_b8"] for key, row in rows.items()}
    # resnet18 takes (4, 4, 12, 12) ms in full precision: the median is 8.
    assert times == {
        ("one", "FP"): 8.0, ("one", "8w8a"): 4.0, ("two", "FP"): 8.0, ("two", "8w8a"): 4.0,
        ("three", "FP"): 1.0, ("three", "8w8a"): 0.5,
    }  # fmt: skip


def test_saturating_products_are_said_in_every_format(tmp_path):
    write_deployment(tmp_path, "0" * 12, {"8w8a": timed(0.5, 2.0)}, products="saturate")
    folder = build.build(tmp_path).parent
    for name in ("results.md", "results.tex"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "8-bit products saturate" in text and "may be lower than elsewhere" in text
    (table,) = Page(folder / "index.html").sections["deployment"]["tables"]
    assert table["products"] == "saturate" and "may be lower than elsewhere" in table["gaps"][0]


def test_what_a_result_lacks_stays_empty(tmp_path):
    write_deployment(tmp_path, "0" * 12, {"8w8a": {"mean_per_class": 80.0, "file_bytes": 0.0}})
    (table,) = tables_of(tmp_path)
    assert score_columns([table]) == ["mean per class (%)"]
    (row,) = table.rows
    assert (
        set(row.cells) == {"mean per class (%)", "size (MB)"} < {*COLUMNS.values(), *table.columns}
    )
    assert row.facts["bit_operations"] is None and row.facts["time_1t_b1"] is None
    text = (build.build(tmp_path).parent / "results.md").read_text(encoding="utf-8")
    assert "| mine | resnet18 | ssql | 8w8a | 80.0† | 0 | – | – |" in text


def test_a_job_that_failed_is_listed_and_has_no_table(tmp_path):
    identity = {"task": "deployment", "dataset": "digits", "protocol": "linear"}
    why = {"status": "failed", "reason": "layer1.conv2 has no integer form"}
    write(tmp_path, "0" * 12, stage="deploy", identity=identity, **why)
    folder = build.build(tmp_path).parent
    assert "deployment" not in Page(folder / "index.html").sections
    text = (folder / "results.md").read_text(encoding="utf-8")
    assert "Integer inference" not in text and "layer1.conv2 has no integer form" in text


def test_a_skipped_job_has_the_same_task_as_one_that_ran(tmp_path):
    why = {"status": "skipped", "reason": "openvino is not installed; nothing was run."}
    write(tmp_path, "0" * 12, stage="deploy", identity={}, **why)
    text = build.export(tmp_path, "md")
    assert "| skipped | mine | deployment |" in text and "openvino is not installed" in text


def test_what_others_sent_is_not_shown_for_nobody_could_check_it(tmp_path):
    folder = submit(tmp_path, "jane", {"1" * 12: "self-reported"})
    write_deployment(folder, "1" * 12, {"8w8a": timed(0.01, 0.01)}, name="theirs")
    assert tables_of(tmp_path) == []
    write_deployment(tmp_path, "0" * 12, {"8w8a": timed(0.5, 2.0)})
    (table,) = tables_of(tmp_path)
    assert set(rows_of(table)) == {("mine", "ssql", "8w8a")}


def test_graphs_that_decide_otherwise_are_named_in_every_format(tmp_path):
    low = timed(0.5, 2.0, agreement=91.0, noise_floor=99.5)
    equal = timed(0.5, 2.0, agreement=99.5, noise_floor=99.5 + 1e-9)
    write_deployment(tmp_path, "0" * 12, {"8w8a": equal, "4w4a": low})
    (table,) = tables_of(tmp_path)
    (note,) = table.gaps
    assert "decides otherwise than the simulation" in note
    assert "4w4a (agreement 91.00 %, noise floor 99.50 %)" in note and "8w8a" not in note
    folder = build.build(tmp_path).parent
    for name in ("results.md", "results.tex"):
        assert "decides otherwise than the simulation" in (folder / name).read_text("utf-8")
    (shown,) = Page(folder / "index.html").sections["deployment"]["tables"]
    assert shown["gaps"] == [note]


DETECTOR = {"dataset": "digit-scenes", "protocol": "retinanet of torchvision", "image_size": 96}


def test_detectors_stand_in_tables_of_their_own_with_how_they_were_trained(tmp_path):
    at = timed(0.5, 2.0, AP=40.5, AP50=70.25, agreement=97.0, noise_floor=98.0)
    del at["top1"]
    for number, training in enumerate(("lsq", "lsq, backbone+neck")):
        facts = {**DETECTOR, "training": training}
        write_deployment(tmp_path, f"{number:012x}", {"4w4a": at}, policy="lsq", **facts)
    write_deployment(tmp_path, "2" * 12, {"4w4a": timed(0.4, 2.0)})
    detectors, networks = sorted(
        tables_of(tmp_path), key=lambda table: "training" not in table.labels
    )
    assert detectors.title.startswith(
        "Integer inference: digit-scenes at 96 px, retinanet of torchvision, openvino"
    )
    assert detectors.labels == ("checkpoint", "architecture", "training", "policy", "precision")
    assert [row.labels[2] for row in detectors.rows] == ["lsq", "lsq, backbone+neck"]
    assert detectors.columns[:2] == ("AP (%)", "AP50 (%)") and "AP (%)" not in networks.columns
    assert "mine lsq, backbone+neck lsq 4w4a (agreement 97.00 %" in detectors.gaps[0]
    text = (build.build(tmp_path).parent / "results.md").read_text(encoding="utf-8")
    assert "| mine | resnet18 | lsq, backbone+neck | lsq | 4w4a | 40.5† | 70.2† |" in text


def test_images_of_many_sizes_have_none_in_the_title(tmp_path):
    facts = {**DETECTOR, "dataset": "coco:mine", "image_size": None, "training": "lsq"}
    write_deployment(tmp_path, "0" * 12, {"4w4a": timed(0.5, 2.0, AP=40.0)}, **facts)
    (table,) = tables_of(tmp_path)
    assert table.title.startswith("Integer inference: coco:mine, retinanet of torchvision, ")
