"""Checking any bundle takes at most four times what a file of its kind may have, and 300 MB."""

import json
import logging
import shutil

import pytest

from lowbit.benchmark.submissions import BundleError, examine
from tests.benchmark.bundles import SCENES, Forger, run_job
from tests.benchmark.conftest import linear_bundle  # noqa: F401  a fixture
from tests.reliability import large_bundles as large
from tests.reliability.odd_files import read_in_child

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

_ADDRESSES = 2 << 30  # bytes that allocators reserve and do not use


@pytest.fixture(scope="module")
def boxes_bundle(tmp_path_factory):
    from lowbit.benchmark.submissions import write_bundle
    from tests.benchmark.bundles import ENTRY

    home = tmp_path_factory.mktemp("boxes")
    run_job(home / "runs", "detection", **SCENES)
    write_bundle(home / "runs", home / "boxes.zip", ENTRY)
    return home / "boxes.zip"


@pytest.fixture
def peak(tmp_path, tally, linear_bundle, monkeypatch):  # noqa: F811
    """Return a function that checks a bundle in a child, and asserts how that ended and its memory."""
    logging.disable(logging.WARNING)
    examine(linear_bundle)  # what every check imports counts for none of them
    (tmp_path / "work").mkdir()
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))

    def _peak(kind, bundle, *, ended="refused"):
        allowed = 4 * large.ALLOWED[kind] + 300_000_000
        found = read_in_child(
            examine, bundle, (BundleError,), tmp_path / "work",
            memory=allowed + _ADDRESSES, seconds=600,
        )  # fmt: skip
        within = found.memory * 2**20 <= allowed
        tally.add(f"large bundles: {kind}", 1, not (found.clean and within), found.memory)
        assert found.ended == ended
        assert within, f"{found.memory:.0f} MiB, where {allowed / 2**20:.0f} are allowed"
        bundle.unlink()

    yield _peak
    logging.disable(logging.NOTSET)
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def forger(linear_bundle, tmp_path):  # noqa: F811
    return Forger(linear_bundle, tmp_path / "forged")


def test_directories(tmp_path, peak):
    for count in (50_001, 178_000, 3_000_000):
        peak("directory", large.long_directory(tmp_path / "b.zip", count))


@pytest.mark.parametrize("case", large.JSONS)
def test_manifests(tmp_path, peak, linear_bundle, case):  # noqa: F811
    content = large.JSONS[case](large.ALLOWED["manifest"])
    peak("manifest", large.with_manifest(content, linear_bundle, tmp_path / "b.zip"))


def test_manifests_of_many_names(tmp_path, peak, linear_bundle):  # noqa: F811
    for count in (50_000, 90_000):
        content = large.many_names(count)
        peak("manifest", large.with_manifest(content, linear_bundle, tmp_path / "b.zip"))


@pytest.mark.parametrize("case", large.JSONS)
def test_results(tmp_path, peak, forger, case):
    (forger.job / "result.json").write_bytes(large.JSONS[case](large.ALLOWED["result"]))
    (forger.job / "recipe.yaml").unlink()
    peak("result", forger.pack(tmp_path / "b.zip"))


@pytest.mark.parametrize("values", [180_000, 199_000])
def test_results_with_long_details(tmp_path, peak, forger, values):
    forger.edit(lambda mapping: mapping["details"].update(more=large.details(values)))
    peak("result", forger.pack(tmp_path / "b.zip"), ended="read")


def test_results_with_long_recipes(tmp_path, peak, forger):
    for count in (9_000, 60_000):
        forger.edit(lambda m, count=count: m["recipe"].update(metrics=["top1"] * count))
        peak("result", forger.pack(tmp_path / "b.zip"))


def test_many_results(tmp_path, peak, forger):
    """As many large ones as are kept until the last was checked, and one more."""
    original = json.loads((forger.job / "result.json").read_text())
    for count, ended in ((14, "read"), (16, "refused")):
        for seed in range(count):
            place = forger.job.with_name(f"{seed:012x}")
            shutil.copytree(forger.job, place)
            forger_job, forger.job = forger.job, place
            (place / "result.json").write_text(json.dumps(original))

            def change(mapping, seed=seed):
                mapping["recipe"]["seed"] = 100 + seed
                mapping["details"]["more"] = large.details(199_000)

            forger.edit(change, new_id=True)
            forger.job = forger_job
        peak("results", forger.pack(tmp_path / "b.zip"), ended=ended)
        for folder in forger.job.parent.iterdir():
            if folder != forger.job:
                shutil.rmtree(folder)


@pytest.mark.parametrize("case", large.PREDICTION_FILES)
def test_predictions(tmp_path, peak, forger, case):
    content = large.PREDICTION_FILES[case]()
    peak("predictions", large.forged(forger, "predictions.parquet", content, tmp_path / "b.zip"))


@pytest.mark.parametrize("case", large.JSONS)
def test_detections(tmp_path, peak, boxes_bundle, case):
    forger = Forger(boxes_bundle, tmp_path / "boxes")
    content = large.JSONS[case](large.ALLOWED["detections"])
    peak("detections", large.forged(forger, "detections.json", content, tmp_path / "b.zip"))


def test_as_many_detections_as_are_allowed_and_one_more(tmp_path, peak, boxes_bundle):
    forger = Forger(boxes_bundle, tmp_path / "boxes")
    for more, ended in (
        (0, "read"),
        (1, "refused"),
    ):  # the untrained detector has AP 0, and so have these
        content = large.many_detections(large.MOST_DETECTIONS + more)
        bundle = large.forged(forger, "detections.json", content, tmp_path / "b.zip")
        peak("detections", bundle, ended=ended)
