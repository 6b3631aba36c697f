"""Hours and bytes before a job runs: from its own kind, from throughput, or at an assumed rate."""

from pathlib import Path

import pytest

from lowbit.benchmark.planning.job import NETWORKS, File, Job, Label, Output
from lowbit.benchmark.recipes.yaml_files import validate
from lowbit.benchmark.results import build_result
from lowbit.benchmark.results.result_file import write_result
from lowbit.benchmark.scheduling import estimate
from lowbit.benchmark.scheduling.dry_run import Preview
from lowbit.benchmark.scheduling.dry_run_report import wall_seconds
from lowbit.benchmark.scheduling.estimate import CPU_RATE, GPU_RATE, UNKNOWN, Estimator, estimator
from tests.lowbit.backbones.checkpoints.file_formats.hostile_files import FILES, MANY_OBJECTS

SIZE = 6e10
MADE = [
    {"name": name, "pretrain": "pretrain.yaml", "overrides": {"lr": lr, **facts}}
    for name, lr in (("A", 1), ("B", 2))
    for facts in ({"architecture": "fakenet", "size": SIZE},)
]


def took(job, seconds, *, device="cpu"):
    returned = {"measurements": [], "checkpoint": {"architecture": "fakenet"}}
    usage = {"device": device, "seconds": seconds}
    return build_result.completed(job, returned, inputs={}, folder=None, usage=usage)


@pytest.fixture
def planned(bench):
    """Two checkpoints; features of each, made once, cost nine times what a job does on them."""
    sharing = {"cache_dir": None, "size": SIZE}
    return bench.plan(
        seeds=[0, 1],
        checkpoints=MADE,
        transfer=[
            {"recipe": "transfer.yaml", "overrides": sharing},
            {"recipe": "transfer.yaml", "overrides": {**sharing, "lr": 5}},
        ],
    )


def seconds_of(found, planned):
    return {
        (job.stage, job.label.checkpoint, job.recipe["lr"], job.recipe["seed"]): found[job.id]
        for job in planned.jobs.values()
    }


def test_where_nothing_has_run_a_rate_is_assumed_and_shared_work_counted_once(planned):
    for device, rate in (("cpu", CPU_RATE), ("A GPU", GPU_RATE)):
        found = seconds_of(Estimator(device).estimate_all(planned.jobs.values()), planned)
        assert {e.source for e in found.values()} == {"assumed"}
        alone, shared = SIZE / rate, 9 * SIZE / rate
        for name, lr in (("A", 1), ("B", 2)):
            assert found["pretrain", name, lr, 0].seconds == pytest.approx(alone)
            own = {k: e for k, e in found.items() if k[:2] == ("transfer", name)}
            first, *others = own.values()
            assert first.seconds == pytest.approx(alone + shared)
            assert first.disk == pytest.approx(1e6 + 9 * SIZE)
            assert [e.seconds for e in others] == pytest.approx([alone] * 3)
            assert first.follows is None
            assert {planned.jobs[e.follows].label.checkpoint for e in others} == {name}


def test_throughput_is_learned_from_the_same_protocol(planned):
    learned = Estimator("cpu")
    jobs = list(planned.jobs.values())
    scored = [job for job in jobs if job.stage == "transfer" and job.label.checkpoint == "A"]
    learned.learn(took(scored[0], 100.0))  # features and itself: ten times SIZE
    found = learned.estimate_all(jobs)
    (other,) = (j for j in scored if j.recipe["lr"] == 5 and j.recipe["seed"] == 0)
    assert (found[other.id].source, found[other.id].seconds) == ("throughput", pytest.approx(10))


def test_a_jobs_own_kind_comes_first_whatever_seed_and_checkpoint(planned):
    learned = Estimator("cpu")
    scored = [job for job in planned.jobs.values() if job.stage == "transfer"]
    kind = [job for job in scored if job.recipe["lr"] == 1]
    for job, seconds in zip(kind, (50.0, 7.0, 9.0), strict=False):
        learned.learn(took(job, seconds))
    found = learned.estimate_all(scored)
    assert {found[job.id].source for job in kind} == {"recipe"}
    assert found[kind[-1].id].seconds == 9.0  # the median
    others = [found[j.id].source for j in scored if j.recipe["lr"] == 5]
    assert set(others) == {"throughput"}


def test_other_devices_and_failures_teach_nothing(planned):
    learned = Estimator("cpu")
    job = next(iter(planned.jobs.values()))
    learned.learn(took(job, 3.0, device="A GPU"))
    learned.learn(build_result.failed(job, "broken", inputs={}, folder=Path(job.id)))
    assert learned.estimate_all([job])[job.id].source == "assumed"


def test_a_job_that_cannot_be_counted_is_not_guessed(bench):
    planned = bench.plan()
    found = Estimator("cpu").estimate_all(planned.jobs.values())
    assert {(e.seconds, e.operations, e.disk) for e in found.values()} == {(None, None, 0)}


def test_no_error_of_a_stage_reaches_the_sweep(planned, monkeypatch):
    def fail(*_):
        raise RecursionError("odd")

    estimate._counted.cache_clear()
    monkeypatch.setattr(estimate, "validate", fail)
    found = Estimator("cpu").estimate_all(planned.jobs.values())
    estimate._counted.cache_clear()
    assert {(e.seconds, e.operations) for e in found.values()} == {(None, None)}


@pytest.mark.parametrize("kind", sorted(set(FILES) - set(MANY_OBJECTS)))
def test_the_network_of_an_odd_checkpoint_is_unknown(tmp_path, kind):
    (tmp_path / "x.pth").write_bytes(FILES[kind]())
    assert estimate._stated(File(tmp_path / "x.pth", kind)) == "-"


def test_an_estimator_reads_the_runs_folder(bench, planned):
    job = next(iter(planned.jobs.values()))
    folder = bench.runs / job.id
    folder.mkdir(parents=True)
    write_result(folder, took(job, 12.5))
    found = estimator(bench.runs, planned.jobs, device="cpu").estimate_all([job])
    assert found[job.id].seconds == 12.5


def test_wall_time_is_the_longest_chain_or_everything_shared_out(planned):
    estimates = Estimator("cpu").estimate_all(planned.jobs.values())
    rows = [Preview(job, "new", "", estimates[job.id]) for job in planned.jobs.values()]
    unit = SIZE / CPU_RATE
    assert wall_seconds(rows, 1) == pytest.approx((2 + 2 * 10 + 6) * unit)
    assert wall_seconds(rows, 100) == pytest.approx((1 + 10) * unit)


def test_a_deploy_job_is_not_guessed_and_then_takes_what_one_of_its_kind_took():
    def plan(seed, **recipe):
        inputs = {"checkpoint": Output("c" * 12), "networks": Output("d" * 12, NETWORKS)}
        paths = dict.fromkeys(inputs, "(made by the sweep)")
        recipe = validate("deploy", {**paths, "seed": seed, **recipe})
        return Job.plan("deploy", recipe, inputs=inputs, label=Label("A", architecture="fakenet"))

    first, second, another = plan(0), plan(1), plan(0, precisions=["FP"])
    learned = Estimator("cpu")
    jobs = [first, second, another]
    assert set(learned.estimate_all(jobs).values()) == {UNKNOWN}
    learned.learn(took(first, 66.0))
    found = learned.estimate_all(jobs)
    assert (found[second.id].seconds, found[second.id].source) == (66.0, "recipe")
    assert found[another.id] == UNKNOWN
