"""Bundles between two who mean well: written, checked, kept, shown, taken away."""

import json
import os
import shutil
import signal
import zipfile

import pytest
import torch
import yaml
from PIL import Image

from lowbit.benchmark.cli.leaderboard import main
from lowbit.benchmark.planning.job import Output
from lowbit.benchmark.results.result_file import Result, read_result, write_result
from lowbit.benchmark.results.verdicts import JobVerdict, read_verdicts
from lowbit.benchmark.submissions import (
    BundleError,
    Entry,
    add,
    describe,
    examine,
    measured_here,
    read_entry,
    remove,
    store,
    write_bundle,
)
from tests.benchmark.bundles import ENTRY, SCENES, run_job, run_linear, tree

VERIFIED = "the numbers follow from the predictions and the labels"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("sender")


@pytest.fixture(scope="module")
def jobs(home):
    """One job of each kind that is sent: linear, a detector, a pretraining and what it made, scored."""
    runs = home / "runs"
    small = {"architecture": "resnet10_slim", "dataset": "digits", "image_size": 16}
    made = run_job(runs, "pretrain", name="made", **small, epochs=0)
    chosen = {"checkpoint": Output(made.id)}
    knn = {"dataset": "digits", "image_size": 16, "protocol": "knn", "precisions": ["FP"]}
    return {
        "linear": run_linear(runs),
        "detection": run_job(runs, "detection", name="random", **SCENES),
        "pretrain": made,
        "knn": run_job(runs, "transfer", name="made", inputs=chosen, **knn),
    }


@pytest.fixture(scope="module")
def runs(home, jobs):
    return home / "runs"


@pytest.fixture(scope="module")
def bundle(home, runs):
    write_bundle(runs, home / "all.zip", ENTRY)
    return home / "all.zip"


@pytest.fixture
def board(tmp_path):
    (tmp_path / "board").mkdir()
    return tmp_path / "board"


def test_what_was_sent_is_verified_where_it_can_be(bundle, jobs, board):
    submission = add(bundle, board)
    verdicts = {kind: submission.verdicts[job.id] for kind, job in jobs.items()}
    assert verdicts == {
        "linear": JobVerdict(source="verified", reason=VERIFIED),
        "knn": JobVerdict(source="verified", reason=VERIFIED),
        "detection": JobVerdict(
            source="verified", reason="the numbers follow from the detections and the labels"
        ),
        "pretrain": JobVerdict(source="self-reported", reason="a training cannot be scored again"),
    }
    kept = {f"submissions/jane-2026/{job_id}": v for job_id, v in submission.verdicts.items()}
    assert read_verdicts(board) == kept


def test_the_results_that_are_kept_are_the_senders(bundle, jobs, runs, board):
    add(bundle, board)
    for job in jobs.values():
        sent = read_result(runs / job.id)
        found = read_result(board / "submissions" / "jane-2026" / job.id)
        assert found.measurements == sent.measurements
        assert found.identity == sent.identity
        assert found.checkpoint == sent.checkpoint
        folder = board / "submissions" / "jane-2026" / job.id
        assert yaml.safe_load((folder / "recipe.yaml").read_text()) == found.recipe
        assert {p.name for p in folder.iterdir()} == {
            "result.json",
            "recipe.yaml",
            *found.artifacts.values(),
        }


def test_costs_are_not_taken_from_the_sender(home, jobs, board, tmp_path):
    """They follow from the architecture, which is the sender's word."""
    runs = shutil.copytree(home / "runs" / jobs["linear"].id, tmp_path / "r" / jobs["linear"].id)
    result = read_result(runs)
    cost = {"FP": {"weight_bytes": 1, "bit_operations": 1}}
    mapping = {**result.model_dump(mode="json"), "costs": cost}
    write_result(runs, Result.model_validate(mapping))
    write_bundle(runs.parent, tmp_path / "b.zip", ENTRY)
    assert (
        '"costs": {'
        in zipfile.ZipFile(tmp_path / "b.zip").read(f"jobs/{runs.name}/result.json").decode()
    )
    add(tmp_path / "b.zip", board)
    assert read_result(board / "submissions" / "jane-2026" / runs.name).costs == {}


def test_equal_results_make_equal_bundles_without_the_senders_folders(home, runs, bundle, tmp_path):
    write_bundle(runs, tmp_path / "again.zip", ENTRY)
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()
    with zipfile.ZipFile(bundle) as archive:
        assert archive.testzip() is None
        everything = b"".join(archive.read(name) for name in archive.namelist())
    assert str(home).encode() not in everything


def test_adding_again_changes_nothing_and_removing_leaves_nothing(bundle, board):
    add(bundle, board)
    before = tree(board)
    add(bundle, board)
    assert tree(board) == before
    assert {p.name for p in board.iterdir()} == {"submissions"}  # nothing half-done beside
    remove("jane-2026", board)
    assert tree(board).keys() == {"submissions/.lock"}
    with pytest.raises(FileNotFoundError, match=r"no submission 'jane-2026'.*It has: none"):
        remove("jane-2026", board)


@pytest.mark.parametrize("moment", ["_write", "_place"])
def test_killed_while_adding_it_adds_nothing_and_the_next_adds_all(bundle, board, moment):
    child = os.fork()
    if child == 0:
        setattr(store, moment, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        add(bundle, board)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert read_verdicts(board) == {}
    assert [path.name for path in board.iterdir() if path.name != "submissions"]  # what it left
    found = add(bundle, board)
    assert len(read_verdicts(board)) == len(found.results) == 4
    assert {path.name for path in board.iterdir()} == {"submissions"}


def test_killed_while_removing_it_is_gone_and_can_come_back(bundle, board):
    add(bundle, board)
    whole = tree(board)
    (board / "submissions" / "jane-2026" / "verdict.json").unlink()  # as far as it came
    assert read_verdicts(board) == {}
    add(bundle, board)
    assert tree(board) == whole


def test_an_update_takes_the_old_ones_place_only_when_that_is_removed(
    bundle, runs, board, tmp_path
):
    add(bundle, board)
    write_bundle(runs, tmp_path / "new.zip", ENTRY, checkpoints=["mine"])
    before = tree(board)
    with pytest.raises(
        BundleError, match=r"another submission 'jane-2026' already.*remove it first"
    ):
        add(tmp_path / "new.zip", board)
    assert tree(board) == before
    remove("jane-2026", board)
    assert len(add(tmp_path / "new.zip", board).results) == 1


def test_one_job_is_of_one_submission(bundle, runs, board, tmp_path):
    add(bundle, board)
    other = Entry(name="joe", submitter="Joe")
    write_bundle(runs, tmp_path / "joe.zip", other, checkpoints=["mine"])
    before = tree(board)
    with pytest.raises(BundleError, match=r"'jane-2026' already has 1 of its jobs.*nothing was"):
        add(tmp_path / "joe.zip", board)
    assert tree(board) == before


def test_what_made_a_checkpoint_comes_along(runs, jobs, tmp_path):
    found = write_bundle(runs, tmp_path / "made.zip", ENTRY, checkpoints=["made"])
    assert found.results.keys() == {jobs["knn"].id, jobs["pretrain"].id}


def test_an_unknown_checkpoint_is_named(runs, tmp_path):
    with pytest.raises(BundleError, match=r"checkpoint 'mime'.*Did you mean 'mine'"):
        write_bundle(runs, tmp_path / "b.zip", ENTRY, checkpoints=["mime"])
    weights = {"mime": "https://example.org/mime.pth"}
    with pytest.raises(BundleError, match=r"weights of 'mime'.*Did you mean 'mine'"):
        write_bundle(runs, tmp_path / "b.zip", ENTRY.model_copy(update={"weights": weights}))
    assert not list(tmp_path.iterdir())


def test_a_changed_file_of_ones_own_is_found_before_it_is_sent(runs, jobs, tmp_path):
    folder = shutil.copytree(runs / jobs["linear"].id, tmp_path / "runs" / jobs["linear"].id)
    (folder / "predictions.parquet").write_bytes(b"something else")
    with pytest.raises(
        BundleError, match=r"is not the file that its job wrote; nothing was written"
    ):
        write_bundle(tmp_path / "runs", tmp_path / "b.zip", ENTRY)
    shutil.copy(runs / jobs["linear"].id / "predictions.parquet", folder)
    result = read_result(folder)
    better = result.measurements[0].model_copy(update={"value": 99.9})
    write_result(
        folder, result.model_copy(update={"measurements": (better, *result.measurements[1:])})
    )
    with pytest.raises(
        BundleError, match=r"would be refused; nothing was written.*\n.*99\.9000, does"
    ):
        write_bundle(tmp_path / "runs", tmp_path / "b.zip", ENTRY)
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]


@pytest.fixture(scope="module")
def photographs(home):
    """A set of one's own: 2 classes of noise."""
    noise = torch.Generator().manual_seed(0)
    for part, count in (("train", 24), ("test", 8)):
        for name in "ab":
            folder = home / "data" / "noise" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(256, (16, 16, 3), generator=noise, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    return home / "data"


def test_without_the_image_set_it_is_reported_until_the_set_is_there(photographs, board, tmp_path):
    runs = tmp_path / "runs"
    job = run_linear(
        runs, dataset="folder:noise", data_root=str(photographs), calibration_batches=1
    )
    write_bundle(runs, tmp_path / "b.zip", ENTRY, data_root=photographs)
    (board / "none").mkdir()
    found = add(tmp_path / "b.zip", board, data_root=board / "none").verdicts[job.id]
    assert found.source == "self-reported"
    assert found.reason == (
        "there was no folder:noise to compare with; the numbers follow from the predictions as sent"
    )
    again = add(tmp_path / "b.zip", board, data_root=photographs)
    assert again.verdicts[job.id] == JobVerdict(source="verified", reason=VERIFIED)
    test = next((photographs / "noise" / "test" / "a").iterdir())
    test.rename(test.parents[1] / "b" / "moved.png")  # another set of the same name
    with pytest.raises(
        BundleError, match=r"'split_sha256' is .* where its recipe and the image set"
    ):
        add(tmp_path / "b.zip", board, data_root=photographs)


def test_without_predictions_it_is_reported(board, tmp_path):
    run_linear(tmp_path / "runs", save_predictions=False)
    (verdict,) = write_bundle(tmp_path / "runs", tmp_path / "b.zip", ENTRY).verdicts.values()
    assert verdict.source == "self-reported"
    assert verdict.reason == "it has no predictions or detections to score again"


def test_what_ran_here_too_is_said(bundle, runs, jobs, tmp_path):
    folder = shutil.copytree(runs / jobs["linear"].id, tmp_path / "runs" / jobs["linear"].id)
    own = read_result(folder)
    other = own.measurements[0].model_copy(update={"value": own.measurements[0].value - 1.5})
    write_result(folder, own.model_copy(update={"measurements": (other, *own.measurements[1:])}))
    submission = add(bundle, tmp_path / "runs")
    ((theirs, mine),) = measured_here(submission, tmp_path / "runs")
    assert theirs.job_id == mine.job_id == jobs["linear"].id
    assert mine.measurements[0] == other


def test_a_description_puts_alike_jobs_together(bundle, jobs):
    lines = list(describe(examine(bundle)))
    assert lines[0] == "jane-2026, by Jane Doe, Somewhere: 4 jobs"
    assert f"  verified (2): {VERIFIED}" in lines
    assert f"    {jobs['linear'].id}  transfer mine digits linear FP/4w4a seed 0" in lines


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ({"submitter": "x"}, "name"),
        ({"name": "../x", "submitter": "x"}, "name"),
        ({"name": "Jane", "submitter": "x"}, "name"),
        ({"name": "jane", "submitter": "<b>x</b>"}, "submitter.*markup"),
        ({"name": "jane", "submitter": "x", "paper": "javascript:alert(1)"}, "paper"),
        ({"name": "jane", "submitter": "x", "code": "https://x.org/<script>"}, "code"),
        ({"name": "jane", "submitter": "x", "affiliation": "y"}, "affiliation"),
    ],
)
def test_an_entry_that_will_not_do_is_explained(entry, what, tmp_path):
    path = tmp_path / "entry.yaml"
    path.write_text(yaml.safe_dump(entry))
    with pytest.raises(BundleError, match=rf"{what}.*nothing was written. Its keys are name, sub"):
        read_entry(path)


def test_the_commands_from_sender_to_board_and_away(runs, jobs, board, tmp_path, capsys):
    entry, out = tmp_path / "entry.yaml", tmp_path / "out.zip"
    entry.write_text(
        "name: jane-2026\nsubmitter: Jane Doe\npaper: https://arxiv.org/abs/2207.05432\n"
    )
    asked = ["bundle", str(runs), str(out), "--entry", str(entry), "--checkpoint", "mine"]
    assert main(asked) == 0
    assert "jane-2026, by Jane Doe: 1 job\n  verified (1)" in capsys.readouterr().out
    assert main(["add", str(out), "--runs-dir", str(board), "--dry-run"]) == 0
    assert "Nothing was added" in capsys.readouterr().out
    assert list(board.iterdir()) == []
    assert main(["add", str(out), "--runs-dir", str(board)]) == 0
    assert "verified (1)" in capsys.readouterr().out
    saved = json.loads((board / "submissions" / "jane-2026" / "entry.json").read_text())
    assert saved["paper"] == "https://arxiv.org/abs/2207.05432"
    assert main(["add", str(out), "--runs-dir", str(runs)]) == 0
    shown = capsys.readouterr().out
    assert f"{jobs['linear'].id} also ran here, and the board shows that one: of 8 numbers" in shown
    shutil.rmtree(runs / "submissions")
    assert main(["remove", "jane-2026", "--runs-dir", str(board)]) == 0
    assert main(["remove", "jane-2026", "--runs-dir", str(board)]) == 1
    assert main(["add", str(tmp_path / "no.zip"), "--runs-dir", str(board)]) == 1
    assert "there is no bundle" in capsys.readouterr().err
