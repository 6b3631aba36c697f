"""Whose turn it is, and which results stand."""

import json
import multiprocessing
import sys
from types import SimpleNamespace

import pytest

from lowbit.benchmark.results.job_lock import LOCK, Claim
from lowbit.benchmark.results.result_file import ASIDE, RESULT, SCHEMA_VERSION, read_result
from lowbit.benchmark.scheduling.schedule import Schedule

FILES = [{"name": "A", "path": "a.pth"}, {"name": "B", "path": "b.pth"}]


@pytest.fixture
def ran(bench):
    """Run a small sweep; return its plan, pretraining first."""
    planned = bench.plan(seeds=[0, 1], detection=[{"recipe": "detection.yaml", "seeds": [0]}])
    bench.run(planned)
    assert len(bench.events("end")) == 4
    return planned


def stamps(bench):
    return {p.parent.name: p.stat().st_mtime_ns for p in bench.runs.glob(f"*/{RESULT}")}


def edit(bench, job, **changes):
    path = bench.runs / job.id / RESULT
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_others_need_comes_first_then_the_cheap_stages(bench):
    planned = bench.plan(
        checkpoints=[
            {"name": "A", "pretrain": "pretrain.yaml"},
            {"name": "B", "pretrain": "pretrain.yaml", "overrides": {"lr": 2}},
        ],
        detection=[
            {"recipe": "detection.yaml", "overrides": {"lr": 3}},
            {"id": "fp", "recipe": "detection.yaml"},
            {"recipe": "detection.yaml", "overrides": {"lr": 2}, "detector": "fp"},
        ],
    )
    bench.run(planned)
    order = [planned.jobs[job_id] for job_id in bench.events("begin")]
    stages = [(job.stage, job.id in planned.needed) for job in order]
    assert stages == [
        *[("pretrain", True)] * 2,
        *[("detection", True)] * 2,
        *[("transfer", False)] * 2,
        *[("detection", False)] * 4,
    ]


def test_finished_jobs_are_not_run_again(bench, ran):
    before = stamps(bench)
    schedule = bench.run(ran)
    assert schedule.kept == set(ran.jobs)
    assert stamps(bench) == before
    assert len(bench.events("begin")) == 4


def test_a_lock_that_a_killed_runner_left_beside_a_result_goes_with_the_next_run(bench, ran):
    """It was killed between the two; a living one that has not released its claim yet keeps it."""
    dead, held, *_ = (bench.runs / job_id for job_id in ran.jobs)
    claim = Claim.take(held)
    runner = multiprocessing.get_context("fork").Process(target=Claim.take, args=(dead,))
    runner.start()
    runner.join()
    assert (dead / LOCK).exists()
    bench.run(ran)
    assert not (dead / LOCK).exists() and claim.held
    assert len(bench.events("begin")) == 4


def test_always_runs_everything_again_from_nothing(bench, ran):
    bench.run(ran, overwrite="always")
    assert sorted(bench.events("end")) == sorted([*ran.jobs] * 2)
    for job in ran.jobs.values():
        assert bench.result(job).details["attempts"] == 1  # nothing of the first run was left


@pytest.mark.parametrize(("overwrite", "again"), [("never", 0), ("failed", 1), ("always", 1)])
def test_a_failed_job_runs_again_unless_told_not_to(bench, overwrite, again):
    planned = bench.plan(transfer=[{"recipe": "transfer.yaml", "overrides": {"behave": "raise"}}])
    job = list(planned.jobs.values())[-1]
    bench.run(planned)
    bench.run(planned, overwrite=overwrite)
    assert bench.events("begin").count(job.id) == 1 + again
    assert bench.result(job).status == "failed"


def test_what_a_failure_left_is_there_for_the_next_attempt(bench):
    planned = bench.plan(transfer=[{"recipe": "transfer.yaml", "overrides": {"behave": "raise"}}])
    job = list(planned.jobs.values())[-1]
    for attempts in (1, 2):
        bench.run(planned)
        assert (bench.runs / job.id / "state.txt").read_text() == "+" * attempts


def test_a_damaged_result_is_made_again_and_only_that(bench, ran, caplog):
    job = list(ran.jobs.values())[1]
    damaged = '{"schema_version": 1, "job'
    (bench.runs / job.id / RESULT).write_text(damaged)
    before = stamps(bench)
    bench.run(ran)
    assert "is ignored" in caplog.text
    assert bench.events("begin")[4:] == [job.id]
    assert bench.result(job).status == "completed"
    assert (bench.runs / job.id / ASIDE).read_text() == damaged
    assert {i for i, stamp in stamps(bench).items() if stamp != before[i]} == {job.id}


@pytest.mark.parametrize("overwrite", ["never", "failed", "always"])
def test_a_newer_release_s_result_is_never_run_over(bench, ran, overwrite):
    pretrain, transfer, other, detection = ran.jobs.values()
    edit(bench, pretrain, schema_version=SCHEMA_VERSION + 1, later="field")
    (bench.runs / transfer.id / RESULT).unlink()
    before = (bench.runs / pretrain.id / RESULT).read_bytes()
    schedule = bench.run(ran, overwrite=overwrite)
    assert (bench.runs / pretrain.id / RESULT).read_bytes() == before
    assert len(bench.events("begin")) == 4
    assert "written by a newer release" in schedule.blocked[pretrain.id]
    assert f"needs job {pretrain.id}, which was not run: " in schedule.blocked[transfer.id]
    assert schedule.kept == {other.id, detection.id}
    assert not [*bench.runs.glob(f"*/{LOCK}")]


@pytest.mark.parametrize("name", [RESULT, LOCK, "recipe.yaml", ""])
def test_a_folder_or_file_in_the_way_stops_one_job_alone(bench, name):
    planned = bench.plan(seeds=[0, 1])
    pretrain, first, second = planned.jobs.values()
    place = bench.runs / first.id / name
    place.mkdir(parents=True)
    if not name:
        place.rmdir()
        place.write_text("no folder")
    schedule = bench.run(planned)
    assert set(schedule.blocked) == {first.id}
    assert str(place) in schedule.blocked[first.id]
    assert "the job was not run" in schedule.blocked[first.id]
    assert bench.events("end") == [pretrain.id, second.id]
    assert place.exists()


def test_what_a_killed_job_had_not_finished_writing_is_removed(bench):
    planned = bench.plan()
    pretrain, _ = planned.jobs.values()
    left = [bench.runs / pretrain.id / name for name in (".last.pth.x.tmp", "parts/.a.npy.x.tmp")]
    kept = bench.runs / pretrain.id / "last.pth"
    for path in (*left, kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    bench.run(planned)
    assert not any(path.exists() for path in left) and kept.exists()


def test_what_read_another_file_than_there_is_now_runs_again(bench, ran):
    pretrain, transfer, *_ = ran.jobs.values()
    edit(bench, pretrain, artifact_sha256={"checkpoint": "0" * 64})
    bench.run(ran)
    assert sorted(bench.events("begin")[4:]) == sorted(set(ran.jobs) - {pretrain.id})
    assert read_result(bench.runs / transfer.id).details["attempts"] == 1


def test_a_deleted_checkpoint_is_made_again_only_for_a_job_that_needs_it(bench, ran):
    pretrain, transfer, *_ = ran.jobs.values()
    (bench.runs / pretrain.id / "checkpoint.pth").unlink()
    bench.run(ran)
    assert len(bench.events("begin")) == 4
    (bench.runs / transfer.id / RESULT).unlink()
    bench.run(ran)
    assert bench.events("begin")[4:] == [pretrain.id, transfer.id]


def test_a_checkpoint_renamed_in_the_suite_keeps_its_results(bench, ran):
    renamed = bench.plan(
        seeds=[0, 1],
        checkpoints=[{"name": "renamed", "pretrain": "pretrain.yaml"}],
        detection=[{"recipe": "detection.yaml", "seeds": [0]}],
    )
    bench.run(renamed)
    assert len(bench.events("begin")) == 4
    for job in renamed.jobs.values():
        result = bench.result(job)
        assert (result.checkpoint.name, result.question) == ("renamed", job.question)


def test_stages_left_out_are_used_where_finished_and_named_where_not(bench):
    planned = bench.plan()
    pretrain, transfer = planned.jobs.values()
    schedule = bench.run(planned.select(only=("transfer",)))
    assert schedule.blocked == {
        transfer.id: f"It needs job {pretrain.id}, which has not completed and is left out of "
        "this run."
    }
    assert not bench.runs.exists()
    bench.run(planned.select(only=("pretrain",)))
    schedule = bench.run(planned.select(only=("transfer",)))
    assert bench.events("end") == [pretrain.id, transfer.id]
    (bench.runs / pretrain.id / RESULT).unlink()
    schedule = bench.run(planned.select(only=("transfer",)))
    assert (schedule.kept, schedule.blocked) == ({transfer.id}, {})


def test_a_file_that_changes_while_the_sweep_runs_fails_its_jobs(bench):
    path = bench.folder / "backbone.pth"
    path.write_text("first")
    planned = bench.plan(checkpoints=[{"name": "mine", "path": "backbone.pth"}])
    path.write_text("second, and longer")
    bench.run(planned)
    (job,) = planned.jobs.values()
    assert "has changed since the sweep was planned" in bench.result(job).reason
    assert bench.events("begin") == []


def test_the_folder_holds_a_recipe_that_can_be_run_alone(bench, ran):
    pretrain, transfer, *_ = ran.jobs.values()
    text = (bench.runs / transfer.id / "recipe.yaml").read_text()
    assert text.startswith("# transfer made fakes fake FP seed 0 (a transfer recipe)\n")
    made = (bench.runs / pretrain.id / "checkpoint.pth").resolve()
    assert f"checkpoint: {made}\n" in text


def test_a_schedule_that_is_only_looked_at_writes_nothing(bench):
    schedule = Schedule(bench.plan(), bench.runs)
    assert len(schedule.ready()) == 1
    assert not bench.runs.exists()


def test_a_job_without_its_data_is_skipped_and_the_rest_runs(bench):
    lacking = {"recipe": "transfer.yaml", "overrides": {"behave": "data missing"}, "seeds": [0, 1]}
    planned = bench.plan(transfer=[{"recipe": "transfer.yaml"}, lacking])
    bench.run(planned)
    found = [bench.result(job) for job in planned.jobs.values()]
    assert [r.status for r in found] == ["completed", "completed", "skipped", "skipped"]
    assert {r.reason for r in found[2:]} == {
        "There are no fakes here. Get them: python get_fakes.py"
    }
    assert bench.events("begin") == [job.id for job in list(planned.jobs.values())[:2]]


def test_a_job_whose_data_has_come_runs_and_keeps_its_id(bench, monkeypatch):
    lacking = [{"recipe": "transfer.yaml", "overrides": {"behave": "data missing"}}]
    before = bench.plan(transfer=lacking)
    bench.run(before)
    monkeypatch.setattr(sys.modules["lowbit.transfer"], "missing_data", lambda recipe: None)
    after = bench.plan(transfer=lacking)
    assert list(after.jobs) == list(before.jobs)
    bench.run(after)
    assert bench.result(list(after.jobs.values())[1]).status == "completed"


def begin(schedule, count):
    """Start the first jobs that are ready; return them."""
    ready = schedule.ready(count)
    for job in ready:
        schedule.start(job)
    return ready


def test_no_more_jobs_are_named_than_asked_for(bench):
    schedule = Schedule(bench.plan(seeds=[0, 1, 2], checkpoints=FILES), bench.runs)
    assert [job.recipe["seed"] for job in schedule.ready(2)] == [0, 1]
    assert len(schedule.ready()) == 6


def test_of_jobs_that_share_features_one_goes_first(bench):
    """Two checkpoints, three seeds each: while a checkpoint's features are made, the other's turn."""
    planned = bench.plan(
        seeds=[0, 1, 2],
        checkpoints=FILES,
        transfer=[{"recipe": "transfer.yaml", "overrides": {"cache_dir": None}}],
    )
    schedule = Schedule(planned, bench.runs)
    first, other = begin(schedule, 2)
    assert [job.label.checkpoint for job in (first, other)] == ["A", "B"]
    waiting = schedule.ready(1)
    assert [job.label.checkpoint for job in waiting] == ["A"]  # rather than nothing
    schedule.finish(first, SimpleNamespace(status="completed"))
    assert [job.label.checkpoint for job in schedule.ready(3)] == ["A", "A", "B"]


def test_a_job_of_another_runner_comes_up_again_after_a_growing_pause(bench, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("lowbit.benchmark.scheduling.job_queue.time.monotonic", lambda: now[0])
    schedule = Schedule(bench.plan(checkpoints=FILES[:1]), bench.runs)
    (job,) = schedule.ready()
    pauses = []
    for _ in range(8):
        schedule.leave(job)
        assert schedule.ready() == [] and schedule.elsewhere == {job.id}
        pauses.append(schedule.pause)
        now[0] += schedule.pause
        assert schedule.ready() == [job]
    assert pauses == [0.5, 1, 2, 4, 8, 10, 10, 10]


def test_many_jobs_are_examined_once_each(bench, monkeypatch):
    reads = []
    monkeypatch.setattr(
        "lowbit.benchmark.scheduling.schedule.read_result", lambda folder: reads.append(folder)
    )
    schedule = Schedule(bench.plan(seeds=list(range(300)), checkpoints=FILES[:1]), bench.runs)
    while jobs := begin(schedule, 1):
        schedule.finish(jobs[0], SimpleNamespace(status="failed"))
    assert len(reads) == len(set(reads)) == 300
    assert not schedule.open
