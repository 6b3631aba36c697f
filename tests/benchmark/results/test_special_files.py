"""What is no file where a runs folder has one: a message, no traceback, and nobody waits for it."""

import os

import pytest

from lowbit.benchmark.cli import leaderboard, status
from lowbit.benchmark.results.records.record_cache import CACHE
from lowbit.benchmark.results.result_file import make_room, obstacle
from lowbit.benchmark.submissions import BundleError, add, examine
from tests.benchmark.result_folders import write

pytestmark = pytest.mark.timeout(60)

KINDS = {
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
}
PLACES = (
    "{job}/result.json",
    "suite-other.json",
    "{job}/lock",
    CACHE,
    "submissions/jane/verdict.json",
    "{job}",
    "1" * 12,
)


@pytest.fixture
def sweep(bench):
    """A runs folder with a finished job, and a suite of which nothing has begun."""
    assert bench.main("--dry-run") == 1  # there is no suite yet
    from lowbit.benchmark.planning.plan_file import remember

    planned = bench.plan()
    remember(bench.runs, planned)
    write(bench.runs, "a" * 12)
    return bench, next(iter(planned.jobs))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_a_runs_folder(sweep, capsys, kind, place):
    capsys.readouterr()
    sweep, job = sweep
    path = sweep.runs / place.format(job=job)
    path.parent.mkdir(parents=True, exist_ok=True)
    KINDS[kind](path)
    assert status.main([str(sweep.runs)]) == 0
    assert "fakes: 2 jobs: 2 waiting" in capsys.readouterr().out
    assert leaderboard.main(["build", str(sweep.runs)]) == 0
    assert "a" * 12 not in capsys.readouterr().err
    assert sweep.main("--dry-run") == 0
    assert os.path.lexists(path) or place == CACHE


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_that_is_no_file_is_in_the_way_of_its_job_and_stays(tmp_path, kind):
    KINDS[kind](tmp_path / "result.json")
    for said in (obstacle(tmp_path), make_room(tmp_path)):
        assert "cannot be read" in said and "the job was not run, and the file stays" in said
    assert os.path.lexists(tmp_path / "result.json")


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_a_bundle(tmp_path, kind):
    KINDS[kind](tmp_path / "bundle.zip")
    with pytest.raises(
        BundleError, match=r"was refused; nothing was added\. It is a \w+.*, not a file"
    ):
        examine(tmp_path / "bundle.zip")


def test_a_bundle_that_is_a_loop(tmp_path):
    KINDS["loop"](tmp_path / "bundle.zip")
    with pytest.raises(FileNotFoundError, match="there is no bundle"):
        examine(tmp_path / "bundle.zip")


@pytest.mark.parametrize("kind", KINDS)
def test_a_verdict_beside_a_bundle_that_is_added(tmp_path, linear_bundle, kind):
    place = tmp_path / "runs" / "submissions" / "other" / "verdict.json"
    place.parent.mkdir(parents=True)
    KINDS[kind](place)
    if kind == "loop":  # as if it were absent
        assert add(linear_bundle, tmp_path / "runs").results
        return
    with pytest.raises(BundleError, match=r"verdict\.json is damaged.*nothing was added"):
        add(linear_bundle, tmp_path / "runs")
