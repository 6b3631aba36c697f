"""Published numbers beside ours."""

import json
import math
import statistics

import pandas as pd
import pytest
from pydantic import ValidationError

from lowbit.benchmark.leaderboard import reproduction
from lowbit.benchmark.leaderboard.reproduction import STATUSES, reproduce, to_frame
from lowbit.benchmark.planning.plan_file import PlannedJob, PlannedSuite
from lowbit.benchmark.published import published_scores
from lowbit.benchmark.published.selection import published_results
from lowbit.benchmark.published.tolerances import Table, tables
from lowbit.benchmark.results.result_file import COLUMNS

TABLE12 = {
    "paper": "SSQL",
    "table": "Table 12",
    "system": "BYOL",
    "dataset": "CIFAR-10",
    "architecture": "ResNet-18",
    "protocol": "cifar_pretrain>linear",
}  # FP 89.3, 4w4a 88.0; within 1.0 and 2.0


def planned(*jobs):
    return [PlannedSuite("mine", tuple(jobs))]


def job(id, published=TABLE12, precisions=("FP", "4w4a"), **facts):
    return PlannedJob(
        id, "transfer", id, "BYOL", "BYOL", "r18", precisions, facts=facts, published=published
    )


def row(job_id, value, precision="FP", **fields):
    usual = {
        "status": "completed",
        "reason": "",
        "metric": "top1",
        "split": "test",
        "seed": 0,
        "source": "measured",
        "zero_shot": False,
    }
    return {**usual, "job_id": job_id, "value": value, "precision": precision, **fields}


def one(rows, jobs, **where):
    frame = pd.DataFrame(rows, columns=[*COLUMNS, "zero_shot", "seconds", "device"])
    (found,) = [
        r
        for r in reproduce(frame, planned(*jobs))
        if all(getattr(r, k) == v for k, v in {**TABLE12, "precision": "FP", **where}.items())
    ]
    return found


def test_seeds_are_averaged_and_set_against_the_number():
    values = [89.0, 90.1, 90.9]
    rows = [row(f"j{seed}", value, seed=seed) for seed, value in enumerate(values)]
    found = one(rows, [job(f"j{seed}") for seed in range(3)])
    assert found.ours == pytest.approx(statistics.fmean(values))
    assert found.sd == pytest.approx(statistics.stdev(values))
    assert (found.n_seeds, found.published, found.printed) == (3, 89.3, "89.3")
    assert found.difference == pytest.approx(0.7) and found.tolerance == 1.0
    assert found.status == "reproduced" and found.reason == ""
    assert found.jobs == ("j0", "j1", "j2")


@pytest.mark.parametrize(
    ("value", "precision", "status"),
    [
        (90.3, "FP", "reproduced"),  # exactly as far as is tolerated
        (90.31, "FP", "differs"),
        (88.29, "FP", "differs"),
        (86.1, "4w4a", "reproduced"),  # more is tolerated with few bits
        (85.9, "4w4a", "differs"),
    ],
)
def test_the_tolerance_is_the_tables_and_the_precisions(value, precision, status):
    found = one([row("j", value, precision)], [job("j")], precision=precision)
    assert (found.status, found.n_seeds, found.sd) == (status, 1, None)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row("other", 89.0)],
        [row("j", 89.0, split="val")],
        [row("j", 89.0, source="self-reported")],
        [row("j", 89.0, source="reported")],
        [row("j", math.nan, status="skipped", reason="There is no data.")],
    ],
)
def test_what_did_not_run_comes_with_the_command(rows):
    found = one(rows, [job("j")])
    assert (found.status, found.ours, found.difference) == ("not run", None, None)
    assert found.command == "lowbit-bench run configs/suites/ssql_table12.yaml"
    assert found.reason == (rows[0]["reason"] if rows and rows[0]["status"] == "skipped" else "")


def test_a_verified_number_counts():
    assert one([row("j", 89.0, source="verified")], [job("j")]).status == "reproduced"


def test_a_failure_has_its_reason_and_another_seed_has_its_number():
    bad = row("bad", math.nan, status="failed", reason="It diverged.")
    found = one([bad], [job("bad")])
    assert (found.status, found.reason) == ("failed", "It diverged.")
    found = one([bad, row("good", 89.0, seed=1)], [job("bad"), job("good")])
    assert found.status == "reproduced"
    assert found.reason == "1 of 2 jobs have no number yet"


def test_another_metric_is_not_comparable():
    found = one([row("j", 89.0, metric="mean_per_class")], [job("j")])
    assert found.status == "not comparable"
    assert found.reason == "the job measured mean_per_class, not top1 at FP"


def test_a_table_of_vocs_is_judged_by_vocs_metric_beside_cocos():
    where = {
        "paper": "CQ",
        "table": "Table 3",
        "system": "CQ-A",
        "dataset": "VOC07+12 trainval > VOC07 test",
        "architecture": "ResNet-34 + YOLOv4",
        "protocol": "detection_finetune",
        "metric": "AP50",
    }
    claim = {k: where[k] for k in ("paper", "table", "system", "architecture")}
    rows = [row("j", 71.5, metric="AP50_voc07"), row("j", 60.0, metric="AP50")]
    found = one(rows, [job("j", claim)], **where)
    assert (found.status, found.ours, found.printed) == ("reproduced", 71.5, "72.13")
    found = one(rows[1:], [job("j", claim)], **where)
    assert found.status == "not comparable" and found.ours is None


def test_a_table_without_a_tolerance_is_shown_and_not_judged(monkeypatch):
    (cell,) = [
        r
        for r in published_scores()
        if (r["table"], r["system"], r["metric"]) == ("Table 3", "CQ-A", "AP50")
        and r["architecture"].startswith("ResNet-34")
    ]
    claim = {k: cell[k] for k in ("paper", "table", "system", "architecture")}
    where = {k: cell[k] for k in ("dataset", "protocol", "metric")} | claim
    known = tables()[("CQ", "Table 3")].model_copy(update={"tolerance": None, "differs": "All."})
    monkeypatch.setattr(reproduction, "tables", lambda: {("CQ", "Table 3"): known})
    found = one([row("j", 50.0, metric="AP50_voc07")], [job("j", claim)], **where)
    assert found.ours == 50.0 and found.tolerance is None
    assert (found.status, found.reason) == ("not comparable", "All.")


FIGURE = {
    "paper": "TR",
    "table": "Fig. S5",
    "system": "SGDT(Eq. S1)",
    "dataset": "CIFAR-100",
    "architecture": "ResNet-20",
    "protocol": "qat_cosine",
    "precision": "2w2a",
    "metric": "top1",
}


def test_a_result_that_is_drawn_has_ours_and_no_difference():
    claim = {k: FIGURE[k] for k in ("paper", "table", "system")}
    found = one([row("j", 60.0, "2w2a")], [job("j", claim, ("2w2a",))], **FIGURE)
    assert (found.ours, found.published, found.printed) == (60.0, None, "drawn")
    assert (found.difference, found.tolerance, found.status) == (None, None, "not comparable")
    assert "fails to follow the target and is the worst" in found.reason
    assert one([], [job("j", claim, ("2w2a",))], **FIGURE).status == "not run"


def test_hours_are_those_of_the_job_over_what_it_trained():
    where = {
        "paper": "TR",
        "table": "Table S7",
        "system": "SGDT",
        "dataset": "ImageNet",
        "architecture": "ResNet-18",
        "protocol": "qat",
        "precision": "-",
        "metric": "gpu_hours_4xA5000",
    }
    claim = {k: where[k] for k in ("paper", "table", "system")}
    precisions = ("FP", "4w4a", "3w3a", "2w2a")
    took = {"seconds": 3600.0 * 540, "device": "a GPU"}
    rows = [row("j", 70.0, precision, **took) for precision in precisions]
    found = one(rows, [job("j", claim, precisions)], **where)
    assert (found.ours, found.published, found.n_seeds) == (180.0, 176.0, 1)
    assert found.status == "not comparable" and "another machine (a GPU)" in found.reason
    unknown = [row("j", 70.0, "4w4a", seconds=math.nan, device="-")]
    assert one(unknown, [job("j", claim, precisions)], **where).ours is None


def test_ap_after_a_thousand_iterations_is_set_against_its_own_number():
    where = {
        "table": "Sec. B.2 / Fig. 9",
        "system": "SSQL",
        "dataset": "COCO 2017",
        "architecture": "R50 detector (config not stated in seed; C4 inferred)",
        "protocol": "coco_finetune>LSQ(backbone only)",
        "precision": "2w4a",
    }
    claim = {"paper": "SSQL", "table": where["table"], "system": "SSQL"}
    jobs = [job("j", claim, ("2w4a",))]
    rows = [row("j", value, "2w4a", metric=m) for m, value in (("AP@1000", 24.1), ("AP", 36.0))]
    start = one(rows, jobs, **where, metric="AP_bb@1k_iter")
    assert (start.ours, start.published, start.status) == (24.1, 25.4, "reproduced")
    end = one(rows, jobs, **where, metric="AP_bb_final")
    assert (end.ours, end.published) == (36.0, 36.4)


def test_a_spread_takes_two_seeds():
    where = {
        "paper": "TR",
        "table": "Table S6",
        "system": "SGDT(final_TR=1e-4)",
        "dataset": "CIFAR-100",
        "architecture": "ResNet-20",
        "protocol": "qat_cosine",
        "precision": "2w2a",
        "metric": "top1_std5",
    }
    claim = {k: where[k] for k in ("paper", "table", "system")} | {"metric": "top1_std5"}
    jobs = [job(f"j{i}", claim, ("2w2a",)) for i in range(2)]
    rows = [row(f"j{i}", v, "2w2a", seed=i) for i, v in enumerate((64.0, 65.0))]
    found = one(rows[:1], jobs, **where)
    assert (found.status, found.ours) == ("not run", None) and "takes two" in found.reason
    found = one(rows, jobs, **where)
    assert found.ours == pytest.approx(math.sqrt(0.5)) and found.sd is None
    assert found.status == "reproduced"  # 0.59 published, within 0.5


def test_delta_b_is_relative_to_the_networks_of_one_precision():
    claim = {"paper": "CoQuant", "table": "Sec. 4 text", "system": "CoQuant(lambda=0.001)"}
    where = {
        **claim,
        "architecture": "ResNet-18",
        "protocol": "joint_adaptive",
        "precision": "B (set not restated)",
    }
    jobs = [
        job("joint", claim, ("8w8a", "2w2a", "3w3a"), dataset="cifar10"),
        job("alone", None, ("8w8a", "2w2a"), dataset="cifar10", adaptive_method="individual"),
        job("far", None, ("8w8a",), dataset="cifar100", adaptive_method="individual"),
    ]
    rows = [
        row("joint", 95.0, "8w8a"),
        row("joint", 81.0, "2w2a"),
        row("joint", 10.0, "3w3a", zero_shot=True),  # was not trained at it, and does not count
        row("far", 1.0, "8w8a"),
        row("alone", 95.0, "8w8a"),
    ]
    assert "no network trained at 2w2a alone" in one(rows, jobs, **where).reason
    found = one([*rows, row("alone", 90.0, "2w2a")], jobs, **where)
    assert found.ours == pytest.approx(100 * (1 + 0.9) / 2)
    assert found.status == "differs"  # 100.1 published


def test_every_number_of_every_table_is_there_once_and_in_order():
    found = reproduce(pd.DataFrame(columns=COLUMNS), [])
    listed = [r for r in published_results() if (r["paper"], r["table"]) in tables()]
    assert [(r.table, r.system, r.printed) for r in found] == [
        (r["table"], r["system"], r["value"] or "drawn") for r in listed
    ]
    assert {r.status for r in found} == {"not run", "not comparable"}
    assert all(r.reason for r in found if r.status == "not comparable")
    assert all(r.doubt for r in found if r.table == "Table S2")
    frame = to_frame(found)
    assert len(frame) == len(found) and set(frame["status"]) <= set(STATUSES)
    json.dumps([vars(r) for r in found])  # as a page has it


def test_a_suite_of_ones_own_may_claim_a_table_without_a_tolerance(monkeypatch):
    monkeypatch.setattr("lowbit.benchmark.leaderboard.reproduction.tables", dict)
    (found,) = [
        r
        for r in reproduce(pd.DataFrame([row("j", 89.0)]), planned(job("j")))
        if r.precision == "FP"
    ]
    assert (found.status, found.suite, found.command) == ("not comparable", "mine", None)
    assert found.reason == "no tolerance is stated for this table"


def test_a_table_needs_a_tolerance_above_zero():
    fields = {"paper": "P", "table": "T", "suite": "s", "why": "w", "differs": "d"}
    assert Table(**fields, tolerance=None).tolerance is None
    with pytest.raises(ValidationError, match="greater than 0"):
        Table(**fields, tolerance=0)
