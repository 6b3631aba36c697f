"""The Ray executor, on a cluster whose machines are processes of this one."""

import contextlib
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from lowbit.benchmark.executors import StoppedError, get_executor
from lowbit.benchmark.executors import ray as ray_executor
from lowbit.benchmark.recipes.errors import RecipeError
from lowbit.benchmark.results.job_lock import LOCK, Claim, read_holder
from lowbit.benchmark.scheduling.schedule import Schedule
from tests.benchmark.executors.test_local import alive, locks, wait_for

PATIENCE = 240  # s for three machines to import torch, each for itself


@pytest.fixture(scope="module")
def cluster():
    """Three machines of a core each; the runner is on the first."""
    from ray.cluster_utils import Cluster

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as where a shell starts it by `&`
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(2):
        made.add_node(num_cpus=1)
    signal.signal(signal.SIGINT, before)
    yield made
    made.shutdown()


@pytest.fixture
def bench(bench):
    """The bench, whose jobs' processes on Ray's machines import no more than the fakes need."""
    (bench.stages / "sitecustomize.py").write_text("import light_jobs\n")
    return bench


def cluster_test(test):
    return pytest.mark.cluster(pytest.mark.timeout(3 * PATIENCE)(test))


def run(bench, planned, cluster):
    get_executor("ray").run(Schedule(planned, bench.runs), address=cluster.address)


def raylet(node):
    return node.all_processes["raylet"][0].process.pid


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def kill_while_it_works(bench, node, jobs, killed):
    """Kill a machine as soon as one of `jobs` is under way on it; note the job and its process."""

    def working():
        for job_id in jobs & set(bench.events("begin")):
            holder = read_holder(bench.runs / job_id / LOCK)
            if holder is not None and parent(holder.runner) == raylet(node):
                killed.append((job_id, holder.worker))
                return [raylet(node), holder.runner]
        return []

    for pid in wait_for(working, what="a job to begin on the machine", patience=PATIENCE):
        os.kill(pid, signal.SIGKILL)


@cluster_test
def test_a_machine_dies_and_every_job_ends_once(bench, cluster):
    planned = bench.plan(
        seeds=[0, 1, 2, 3, 4],
        transfer=[{"recipe": "transfer.yaml", "overrides": {"sleep": 2.0}}],
        detection=[
            {"recipe": "detection.yaml", "seeds": [0], "overrides": {"behave": way}}
            for way in ("kill", "terminate")
        ],
    )
    slow = {job.id for job in planned.jobs.values() if job.stage == "transfer"}
    node, killed = next(iter(cluster.worker_nodes)), []
    killer = threading.Thread(target=kill_while_it_works, args=(bench, node, slow, killed))
    killer.start()
    assert bench.main("--executor", "ray", "--address", cluster.address) == 2  # two jobs fail
    killer.join()
    *well, crashing, lost = planned.jobs.values()
    assert {bench.result(job).status for job in well} == {"completed"}
    assert "SIGKILL" in bench.result(crashing).reason
    assert bench.result(lost).reason.startswith("MachineLost: 3 machines were lost")
    assert Counter(bench.events("end")) == {job.id: 1 for job in well}
    job_id, process = killed[0]
    begun = dict.fromkeys((job.id for job in (*well, crashing)), 1) | {job_id: 2, lost.id: 3}
    assert Counter(bench.events("begin")) == begun
    assert not alive(process)
    assert locks(bench) == []


@cluster_test
def test_a_signal_ends_jobs_and_gives_claims_back(bench, cluster):
    slow = [{"recipe": "transfer.yaml", "overrides": {"sleep": 600}}]
    planned = bench.plan(seeds=[0, 1], transfer=slow)

    def terminate():
        begun = "both transfers to begin"
        wait_for(lambda: len(bench.events("begin")) == 3, what=begun, patience=PATIENCE)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate).start()
    with pytest.raises(StoppedError):
        run(bench, planned, cluster)
    assert locks(bench) == []
    assert not any(alive(pid) for pid in bench.processes())
    pretrain, *transfers = planned.jobs.values()
    assert bench.result(pretrain).status == "completed"
    assert [bench.result(job) for job in transfers] == [None, None]


@pytest.mark.slow
@cluster_test
def test_a_job_gets_the_gpus_it_asks_for(bench, cluster):
    node = cluster.add_node(num_cpus=2, num_gpus=2)
    try:
        made = {"name": "made", "pretrain": "pretrain.yaml", "overrides": {"device": "auto"}}
        asked = ({"num_gpus": 2}, {"num_gpus": 4, "lr": 2})
        planned = bench.plan(
            checkpoints=[made],
            transfer=[
                {"recipe": "transfer.yaml", "overrides": {"device": "auto", **more}}
                for more in asked
            ],
        )
        run(bench, planned, cluster)
    finally:
        cluster.remove_node(node)
    one, two, four = (bench.result(job) for job in planned.jobs.values())
    assert one.details["gpu"] in ("0", "1")
    assert (two.details["gpu"], two.details["joined"]) == ("0,1", "2")
    assert bench.events("begin").count(two.job_id) == 2
    assert four.status == "failed"
    assert "asks for 4 GPUs, and no machine of the cluster has more than 2" in four.reason


def of_group(leader):
    """Return the name of each process that a runner started, by its id."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_text(errors="replace")
            if f"STARTED_BY={leader}\0" in environment:
                found[int(folder.name)] = (folder / "cmdline").read_text().partition("\0")[0]
        except OSError:  # it has just ended, or is a zombie's
            continue
    return found


def listening(pids):
    """Return the addresses, as the kernel writes them, on which processes accept connections."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                sockets.add(os.readlink(link))
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {
        row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets
    }


@pytest.mark.slow
@cluster_test
def test_a_ray_of_ones_own_listens_on_loopback_and_its_death_ends_the_run(bench, monkeypatch):
    monkeypatch.setenv("STARTED_BY", "this test")
    bench.suite(transfer=[{"recipe": "transfer.yaml", "overrides": {"sleep": 600}}])
    runner = bench.start("--executor", "ray", "--workers", "1")
    wait_for(lambda: len(bench.events("begin")) == 2, what="the transfer", patience=PATIENCE)
    processes = of_group("this test")
    assert listening(processes) == {"0100007F", "0000000000000000FFFF00000100007F"}
    (daemon,) = [pid for pid, name in processes.items() if name.endswith("/raylet")]
    os.kill(daemon, signal.SIGKILL)
    output, _ = runner.communicate(timeout=PATIENCE)
    assert runner.returncode == 2, output
    assert "Ray has no machine left" in output and "Written results are kept" in output
    wait_for(lambda: not any(map(alive, processes)), what="Ray's processes to end")
    assert all(Claim.take(lock.parent) for lock in locks(bench))  # nobody holds it any more


def test_a_cluster_without_a_machine_ends_the_run(bench):
    dead = [{"Alive": False, "Resources": {}}]
    fake = SimpleNamespace(nodes=lambda: dead, remote=lambda **options: lambda function: function)
    with pytest.raises(ConnectionError, match="Ray has no machine left"):
        ray_executor._Runner(fake, Schedule(bench.plan(), bench.runs), 2, lambda *_: None)


def test_without_ray_it_says_how_to_get_it(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RecipeError, match="pip install -r requirements-ray"):
        get_executor("ray").run(Schedule(bench.plan(), bench.runs))
