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
    "{0}/result.json",
    "{1}/lock",
    "{2}",
    "suite-other.json",
    "submissions/jane/verdict.json",
    "1" * 12,
)


@pytest.fixture
def sweep(bench):
    """A runs folder with a finished job, and a suite of which nothing has begun."""
    assert bench.main("--dry-run") == 1  # there is no suite yet
    from lowbit.benchmark.planning.plan_file import remember

    planned = bench.plan(seeds=[0, 1])
    remember(bench.runs, planned)
    write(bench.runs, "a" * 12)
    return bench, list(planned.jobs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("places", [PLACES, (CACHE,)], ids=["all but the cache", "cache"])
def test_a_runs_folder(sweep, capsys, kind, places):
    capsys.readouterr()
    sweep, jobs = sweep
    paths = [sweep.runs / place.format(*jobs) for place in places]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        KINDS[kind](path)
    assert status.main([str(sweep.runs)]) == 0
    assert "fakes: 3 jobs: 3 waiting" in capsys.readouterr().out
    assert leaderboard.main(["build", str(sweep.runs)]) == 0
    assert "a" * 12 not in capsys.readouterr().err
    assert sweep.main("--dry-run") == 0
    assert all(map(os.path.lexists, paths)) or places == (CACHE,)


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
