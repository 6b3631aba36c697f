"""The local executor: failures cost only themselves, nothing runs twice, nothing is left behind."""

import os
import re
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from lowbit.benchmark.executors import StoppedError, get_executor, job_process, local
from lowbit.benchmark.recipes.errors import RecipeError
from lowbit.benchmark.results.frame import load_frame
from lowbit.benchmark.results.job_lock import LOCK, Claim
from lowbit.benchmark.scheduling.schedule import Schedule

PATIENCE = 90  # s a process may take to start on a busy machine


def wait_for(condition, *, what, patience=PATIENCE):
    end = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def locks(bench):
    return [*bench.runs.glob(f"*/{LOCK}")]


@pytest.fixture
def failing(bench):
    """Plan transfers that end in every bad way, beside one that does not."""

    def _failing(*ways):
        entries = [{"recipe": "transfer.yaml", "overrides": {"behave": way}} for way in ways]
        return bench.plan(transfer=[*entries, {"recipe": "transfer.yaml"}])

    return _failing


def by_behaviour(bench, planned):
    return {
        job.recipe["behave"]: bench.result(job)
        for job in planned.jobs.values()
        if job.stage == "transfer"
    }


def test_a_job_that_fails_costs_only_itself(bench, failing):
    planned = failing("raise", "exit", "kill", "abort", "nan")
    bench.run(planned, workers=2)
    results = by_behaviour(bench, planned)
    assert results.pop("well").status == "completed"
    assert {how: result.status for how, result in results.items()} == dict.fromkeys(
        ("raise", "exit", "kill", "abort", "nan"), "failed"
    )
    reasons = {how: result.reason for how, result in results.items()}
    assert reasons["raise"] == "ValueError: The fake broke; nothing was scored. Mend it."
    assert "exit code 3" in reasons["exit"]
    assert "SIGKILL (out of memory, most often)" in reasons["kill"]
    assert "SIGABRT" in reasons["abort"]
    assert reasons["nan"].startswith("FloatingPointError: top1 at FP is nan")
    assert locks(bench) == []
    frame = load_frame(bench.runs).set_index("job_id")
    assert Counter(frame["status"]) == {"completed": 2, "failed": 5}


def test_a_failure_keeps_the_end_of_its_log(bench, failing):
    planned = failing("raise", "abort")
    bench.run(planned)
    results = by_behaviour(bench, planned)
    tail = results["raise"].log_tail
    assert len(tail) == 20
    assert tail[-1] == "ValueError: The fake broke; nothing was scored. Mend it."
    assert "Traceback (most recent call last):" in tail
    assert any("Fatal Python error: Aborted" in line for line in results["abort"].log_tail)


def test_everything_a_job_prints_goes_to_its_log(bench, capfd):
    planned = bench.plan()
    bench.run(planned)
    for job in planned.jobs.values():
        log = (bench.runs / job.id / "log.txt").read_text()
        assert "printed to stdout" in log
        assert "learning at 1" in log
    assert "printed" not in "".join(capfd.readouterr())


def test_a_completed_job_says_what_it_took(bench):
    planned = bench.plan()
    bench.run(planned)
    pretrain, transfer = (bench.result(job) for job in planned.jobs.values())
    assert pretrain.device == "cpu"
    assert 0 < pretrain.seconds < PATIENCE
    assert 10 < pretrain.peak_memory_mb < 500  # it has not imported torch
    assert transfer.inputs["checkpoint"].job_id == pretrain.job_id
    assert transfer.inputs["checkpoint"].sha256 == pretrain.artifact_sha256["checkpoint"]
    assert transfer.checkpoint.method == "Fake"


def test_jobs_behind_a_failure_are_skipped_with_its_reason(bench):
    planned = bench.plan(
        checkpoints=[{"name": "bad", "pretrain": "pretrain.yaml", "overrides": {"behave": "kill"}}],
        detection=[
            {"id": "fp", "recipe": "detection.yaml"},
            {"recipe": "detection.yaml", "detector": "fp", "overrides": {"lr": 2}},
        ],
    )
    bench.run(planned)
    pretrain, *others = planned.jobs.values()
    for job in others:
        result = bench.result(job)
        assert result.status == "skipped"
        assert f"pretrain job {pretrain.id} (bad) failed" in result.reason
        assert "SIGKILL" in result.reason
    assert bench.events("begin") == [pretrain.id]


def test_a_problem_known_before_the_start_starts_nothing(bench):
    planned = bench.plan(
        checkpoints=[{"name": "gone", "path": "gone.pth"}],
        detection=[{"recipe": "detection.yaml", "overrides": {"behave": "no data"}}],
    )
    bench.run(planned)
    reasons = [bench.result(job).reason for job in planned.jobs.values()]
    assert all("gone.pth; the job was not started" in reason for reason in reasons)
    assert "There is no data" in reasons[1]
    assert not bench.journal.exists()


def test_workers_run_at_once(bench):
    planned = bench.plan(
        seeds=[0, 1, 2],
        transfer=[{"recipe": "transfer.yaml", "overrides": {"sleep": 1.0}}],
    )
    bench.run(planned, workers=3)
    events = [line.split()[0] for line in bench.journal.read_text().splitlines()][2:]
    assert events == ["begin"] * 3 + ["end"] * 3
    assert len(bench.processes()) == 4


def test_each_job_sees_one_gpu_and_jobs_at_once_see_different_ones(bench, monkeypatch):
    monkeypatch.setattr(local, "visible_gpus", lambda: ["3", "5"])
    slow = [{"recipe": "transfer.yaml", "overrides": {"sleep": 0.5}}]
    planned = bench.plan(seeds=[0, 1], transfer=slow)
    bench.run(planned, workers=None)  # one a GPU
    first, *both = (bench.result(job).details["gpu"] for job in planned.jobs.values())
    assert first == "3"
    assert sorted(both) == ["3", "5"]


def test_a_job_asking_for_more_gpus_than_there_are_fails_and_says_so(bench, monkeypatch):
    monkeypatch.setattr(local, "visible_gpus", lambda: ["3", "5"])
    planned = bench.plan(
        transfer=[
            {"recipe": "transfer.yaml", "overrides": {"num_gpus": 4}},
            {"recipe": "transfer.yaml", "overrides": {"lr": 2}},
        ]
    )
    bench.run(planned, workers=None)
    _, four, one = (bench.result(job) for job in planned.jobs.values())
    assert "asks for 4 GPUs, and this machine has 2; it was not started." in four.reason
    assert one.status == "completed"


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_jobs_and_gives_claims_back(bench, caplog, signum, code):
    slow = [{"recipe": "transfer.yaml", "overrides": {"sleep": 60}}]
    planned = bench.plan(seeds=[0, 1], transfer=slow)

    def tick(*_):
        if len(bench.events("begin")) == 3:  # both transfers are under way
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.kill(os.getpid(), signum)

    before = signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        assert bench.main("--workers", "2") == code
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert locks(bench) == []
    assert not any(alive(pid) for pid in bench.processes())
    pretrain, *transfers = planned.jobs.values()
    assert bench.result(pretrain).status == "completed"
    assert [bench.result(job) for job in transfers] == [None, None]
    assert "1 of 3 jobs finished. Run the same command to continue." in caplog.text


def test_a_job_that_does_not_hear_sigterm_is_killed(bench):
    bench.suite(transfer=[{"recipe": "transfer.yaml", "overrides": {"behave": "deaf"}}])
    runner = bench.start("--workers", "1")
    wait_for(lambda: len(bench.events("begin")) == 2, what="the transfer to begin")
    time.sleep(0.2)  # until it has stopped its ears
    runner.send_signal(signal.SIGTERM)
    output, _ = runner.communicate(timeout=PATIENCE)
    assert runner.returncode == 143, output
    assert locks(bench) == []
    assert not any(alive(pid) for pid in bench.processes())


def test_a_preempted_job_goes_on_from_its_state(bench):
    planned = bench.plan(
        transfer=[{"recipe": "transfer.yaml", "overrides": {"behave": "preempted"}}]
    )
    bench.run(planned)
    transfer = list(planned.jobs.values())[-1]
    assert bench.result(transfer).status == "completed"
    assert bench.result(transfer).details["attempts"] == 2
    assert bench.events("begin").count(transfer.id) == 2
    assert locks(bench) == []


def test_a_job_that_lost_its_claim_is_ended_and_left_to_the_new_holder(bench, monkeypatch):
    planned = bench.plan(transfer=[{"recipe": "transfer.yaml", "overrides": {"sleep": 60}}])
    transfer = list(planned.jobs.values())[-1]
    lock = bench.runs / transfer.id / LOCK
    schedule = Schedule(planned, bench.runs)
    monkeypatch.setattr(local, "HEARTBEAT", 0.05)  # how often the runner looks around

    def steal(claim):
        if (
            lock.exists()
            and claim.token in lock.read_text()
            and transfer.id in bench.events("begin")
        ):
            lock.write_text(lock.read_text().replace(claim.token, "of another"))
        return True

    def leave(job):
        assert job is transfer
        assert not any(alive(pid) for pid in bench.processes())
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Claim, "beat", steal)
    monkeypatch.setattr(schedule, "leave", leave)
    with pytest.raises(StoppedError):
        local.run(schedule, workers=1)
    assert "of another" in lock.read_text()
    assert bench.result(transfer) is None


def test_no_process_outlives_a_runner_that_is_killed(bench):
    bench.suite(seeds=[0, 1], transfer=[{"recipe": "transfer.yaml", "overrides": {"sleep": 300}}])
    runner = bench.start("--workers", "2")
    wait_for(lambda: len(bench.events("begin")) == 3, what="both transfers to begin")
    pids = bench.processes()
    runner.kill()
    runner.communicate()
    wait_for(lambda: not any(alive(pid) for pid in pids), what="the jobs to end")
    claims = [Claim.take(lock.parent) for lock in locks(bench)]
    assert len(claims) == 2
    assert None not in claims  # free at once, though the heart has just beaten


def test_two_runners_on_one_folder_run_each_job_once(bench, caplog, capfd):
    first = {"name": "made", "pretrain": "pretrain.yaml", "overrides": {"behave": "wait"}}
    bench.suite(
        seeds=list(range(6)),
        checkpoints=[first],
        transfer=[{"recipe": "transfer.yaml", "overrides": {"sleep": 0.2}}],
        detection=[{"recipe": "detection.yaml", "overrides": {"behave": "raise"}}],
    )
    caplog.set_level("INFO", "lowbit.benchmark")
    other = bench.start("--workers", "1")
    wait_for(lambda: bench.events("begin"), what="its first job to begin")

    def let_it_end_once_this_runner_has_looked():
        wait_for(lambda: "results in" in caplog.text, what="this runner to begin")
        (bench.folder / "go on").touch()

    threading.Thread(target=let_it_end_once_this_runner_has_looked).start()
    here = bench.main("--workers", "1")
    outputs = [capfd.readouterr().out + caplog.text, other.communicate(timeout=4 * PATIENCE)[0]]
    assert [here, other.returncode] == [2, 2], outputs
    begun = Counter(bench.events("begin"))
    assert set(begun.values()) == {1}, outputs
    assert len(begun) == 13
    assert locks(bench) == []
    assert all("6 of 13 jobs have not completed" in output for output in outputs)
    # each lists what it ran, and counts what the other did
    listed = [re.findall(r"\[\d+/13\] ", output) for output in outputs]
    others = [re.search(r"(\d+) jobs were run by other", text) for text in outputs]
    others = [int(match[1]) if match else 0 for match in others]  # one may have run them all
    assert sum(map(len, listed)) == 13
    assert others == [13 - len(lines) for lines in listed]


def test_a_runner_without_a_free_worker_does_not_look_at_jobs_of_others(bench, monkeypatch):
    slow = [{"recipe": "transfer.yaml", "overrides": {"sleep": 1.0}}]
    planned = bench.plan(seeds=[0, 1], transfer=slow)
    pretrain, held, own = planned.jobs.values()
    schedule = Schedule(planned, bench.runs)
    (bench.runs / held.id).mkdir(parents=True)
    claim = Claim.take(bench.runs / held.id)
    waits, wait = [], local.connection.wait

    def counted(*arguments):
        waits.append(arguments)
        return wait(*arguments)

    monkeypatch.setattr(local.connection, "wait", counted)
    local.run(schedule, workers=1, report=lambda job, _: job is own and claim.release())
    assert bench.events("end") == [pretrain.id, own.id, held.id]
    assert len(waits) < 50  # it would be thousands in the second of its own job


def test_an_unknown_executor_is_answered_with_what_there_is():
    with pytest.raises(RecipeError, match="Did you mean 'local'"):
        get_executor("locl")


# Imported by the server: processes of a job that fails are forked, so that torch is imported once less
# for each. Those of a job that completes are spawned.
FORK_FAILING = """
import torch.multiprocessing as mp

start = mp.start_processes

def start_processes(function, args, start_method, **options):
    (task,) = args[-1]
    if task.job.recipe["behave"] != "well":
        start_method = "fork"
    return start(function, args, start_method=start_method, **options)

mp.start_processes = start_processes
"""


def test_several_processes_are_one_job(bench, with_torch, monkeypatch):
    monkeypatch.setattr(local, "visible_gpus", lambda: ["3", "5"])
    (bench.stages / "fork_failing.py").write_text(FORK_FAILING)
    monkeypatch.setattr(job_process, "_PRELOAD", [*job_process._PRELOAD, "fork_failing"])
    ways = ("well", "raise beside")
    planned = bench.plan(
        transfer=[
            {"recipe": "transfer.yaml", "overrides": {"num_gpus": 2, "behave": way}} for way in ways
        ]
    )
    bench.run(planned, workers=None)
    _, well, bad = (bench.result(job) for job in planned.jobs.values())
    assert (well.details["joined"], well.details["gpu"]) == ("2", "3,5")
    assert well.device == "2 x cpu"
    assert bench.events("begin").count(well.job_id) == 2
    assert bad.reason == "ValueError: The second process broke."
    assert any("The second process broke." in line for line in bad.log_tail)
    assert not any(alive(pid) for pid in bench.processes())
