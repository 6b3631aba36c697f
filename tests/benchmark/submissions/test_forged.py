"""Bundles of one who lies, and makes every hash fit: nothing of them is kept."""

import io
import json
import math
from functools import reduce

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lowbit.benchmark.results import rescore
from lowbit.benchmark.submissions import BundleError, add, examine, write_bundle
from lowbit.detection import Recipe
from lowbit.detection.stage import load_images
from lowbit.transfer import Recipe as TransferRecipe
from tests.benchmark.bundles import ENTRY, SCENES, Forger, run_job, tree


@pytest.fixture
def forger(linear_bundle, tmp_path):
    return Forger(linear_bundle, tmp_path / "forged")


@pytest.fixture(scope="module")
def detections(tmp_path_factory):
    """A bundle of one detector that really ran."""
    home = tmp_path_factory.mktemp("detections")
    run_job(home / "runs", "detection", name="random", **SCENES)
    write_bundle(home / "runs", home / "detections.zip", ENTRY)
    return home / "detections.zip"


@pytest.fixture
def forger_of_boxes(detections, tmp_path):
    return Forger(detections, tmp_path / "forged")


def refused(forger, match):
    board = forger.folder.parent / "board"
    board.mkdir()
    bundle = forger.pack(forger.folder.parent / "forged.zip")
    with pytest.raises(BundleError, match=rf"(?s)was refused.*nothing was added.*{match}"):
        add(bundle, board)
    assert tree(board).keys() <= {"submissions/.lock"}
    assert not [path for path in board.rglob("*") if "jane" in path.name or "adding" in path.name]


def measured(**fields):
    return lambda mapping: mapping["measurements"][0].update(fields)


def test_nothing_changed_is_nothing_refused(forger):
    forger.edit(lambda mapping: None)
    found = examine(forger.pack(forger.folder.parent / "same.zip"))
    assert found.counts == {"verified": 1}


NUMBERS = {
    "a better number": (measured(value=99.5), "top1 at FP on test, 99.5000, does not follow"),
    "a number for another": (measured(metric="mean_per_class"), "a number twice"),
    "more images": (measured(n=100_000), "540 images predicted, 100000 scored"),
    "a smaller error": (measured(stderr=0.01), "its stderr is"),
    "a narrow interval": (measured(low=93.0, high=93.1), "its low is"),
    "another unit": (measured(unit="points"), "its unit is %"),
    "another split": (measured(split="val"), "number twice|leaves out"),
    "a number nobody asked for": (measured(metric="stderr"), "leaves out top1 at FP"),
    "a precision nobody asked for": (measured(precision="2w2a"), "numbers at '2w2a'"),
    "one number less": (lambda m: m["measurements"].pop(1), "leaves out mean_per_class at FP"),
    "no number": (lambda m: m.update(measurements=[]), "leaves out"),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers(forger, case):
    change, match = NUMBERS[case]
    forger.edit(change)
    refused(forger, match)


IDENTITY = {  # with the new id that goes with it
    "split": (lambda m: m["identity"].update(split_sha256="0" * 64), "'split_sha256' is '0000"),
    "set": (lambda m: m["identity"].update(dataset="cifar10"), "'dataset' is 'cifar10' where"),
    "policy": (lambda m: m["identity"].update(policy_fingerprint="abc"), "'policy_fingerprint'"),
    "protocol": (lambda m: m["identity"].update(protocol="knn"), "'protocol' is 'knn' where"),
    "a fact more": (lambda m: m["identity"].update(seed=7), "'seed' is '7'"),
    "stage": (lambda m: m.update(stage="os"), "stage 'os' is unknown"),
    "version": (lambda m: m.update(protocol_version=99), "version 99 of transfer"),
    "recipe": (lambda m: m["recipe"].update(epochs=-1), "not one of this version's"),
    "key": (lambda m: m["recipe"].update(luck=1), "not one of this version's"),
    "spelling": (lambda m: m["recipe"].update(seed=0.0), "does not say 'seed'"),
    "precisions": (lambda m: m["recipe"].update(precisions=["FP"]), "precisions are not those"),
    "file": (lambda m: m["inputs"]["checkpoint"].update(sha256=None), "which file its 'checkp"),
    "other file": (lambda m: m["inputs"]["checkpoint"].update(sha256="b" * 64), "another file"),
    "path": (lambda m: m["inputs"]["checkpoint"].update(path="/etc/passwd"), "a path of the send"),
}


@pytest.mark.parametrize("case", IDENTITY)
def test_facts_that_decide_what_it_is_compared_with(forger, case, monkeypatch):
    change, match = IDENTITY[case]
    try:
        forger.edit(change, new_id=True)
    except Exception:  # no id can be given to it
        forger.edit(change)
    refused(forger, match)


def test_a_recipe_that_the_id_does_not_name(forger):
    forger.edit(lambda mapping: mapping["recipe"].update(epochs=100))
    refused(forger, "its content hashes to .*: recipe, identity, inputs or name were changed")


def test_a_job_in_anothers_folder(forger):
    forger.job = forger.job.rename(forger.job.with_name("0123456789ab"))
    refused(forger, "job 0123456789ab: it has the result of job")


WORDS = {
    "markup": "<script>alert(1)</script>",
    "another direction": "LQSS\u202e",
    "a terminal's command": "SSQL\x1b[2J",
    "nothing to see": "SSQL\u200b",
    "length": "S" * 300,
    "space": " SSQL",
}


@pytest.mark.parametrize("case", WORDS)
def test_names(forger, case):
    forger.edit(lambda mapping: mapping["checkpoint"].update(name=WORDS[case]), new_id=True)
    refused(forger, "its name '")


def test_text_anywhere(forger):
    forger.edit(lambda mapping: mapping["details"].update(note=["fine", {"so": "far\x07"}]))
    refused(forger, r"its text 'far\\\\x07'|its text 'far\\x07'")


LAYOUT = {
    "unknown schema": (lambda m: m.update(schema_version=99), "schema_version.*should be 2"),
    "no schema": (lambda m: m.pop("schema_version"), "schema_version"),
    "another key": (lambda m: m.update(rank=1), "'rank'"),
    "a failure": (lambda m: m.update(status="failed"), "it failed, and only numbers"),
    "not finite": (measured(value=math.nan), "NaN is no number"),
    "endless": (measured(value=math.inf), "Infinity is no number"),
    "a file elsewhere": (
        lambda m: m["artifacts"].update(predictions="../../predictions.parquet"),
        "not the artifacts that its result names",
    ),
    "a file more": (lambda m: m["artifacts"].update(model="model.pth"), "not the artifacts"),
    "no list of files": (lambda m: m.update(artifacts={}), "not the artifacts"),
    "no hash": (lambda m: m.update(artifact_sha256={}), "scoring it again failed|no hash"),
}


@pytest.mark.parametrize("case", LAYOUT)
def test_layout(forger, case):
    change, match = LAYOUT[case]
    forger.edit(change)
    refused(forger, match)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "cannot be read"),
        ("[]", "should be a valid dictionary"),
        ('{"schema_version": 2, "schema_version": 1}', "a key is given twice"),
        ('{"a": 1e999}', "no finite number"),
        ("[" * 100_000, "nested too deeply|cannot be read"),
        ("\x00\xff", "cannot be read"),
    ],
)
def test_json_that_is_none(forger, text, match):
    (forger.job / "result.json").write_bytes(text.encode("latin-1"))
    refused(forger, match)


def test_a_recipe_for_people_that_is_another(forger):
    path = forger.job / "recipe.yaml"
    path.write_text(path.read_text().replace("epochs: 2", "epochs: 1"))
    refused(forger, "recipe.yaml is not the recipe in its result.json")


def _parquet(frame, like: bytes) -> bytes:
    out = io.BytesIO()
    table = pa.Table.from_pandas(frame, schema=pq.read_schema(io.BytesIO(like)))
    pq.write_table(table, out)
    return out.getvalue()


def _predictions(forger) -> tuple[bytes, pd.DataFrame]:
    data = (forger.job / "predictions.parquet").read_bytes()
    return data, pq.read_table(io.BytesIO(data)).to_pandas()


def _claim_all_right(mapping):
    for said in mapping["measurements"]:
        said.update(value=100.0, stderr=0.0)


def test_predictions_that_are_the_labels_with_numbers_of_the_job(forger):
    data, frame = _predictions(forger)
    frame["FP"] = frame["label"]
    forger.exchange("predictions.parquet", _parquet(frame, data))
    refused(forger, r"does not follow from its files: differs by \+")


def test_labels_that_are_the_predictions(forger):
    data, frame = _predictions(forger)
    frame["label"] = frame["4w4a"] = frame["FP"]
    forger.edit(_claim_all_right)
    forger.exchange("predictions.parquet", _parquet(frame, data))
    refused(forger, "other images or labels than")


def test_easy_images_twice_and_hard_ones_never(forger):
    data, frame = _predictions(forger)
    right = frame[(frame["split"] == "test") & (frame["FP"] == frame["label"])]
    right = right[right["4w4a"] == right["label"]]
    rest = frame[frame["split"] != "test"]
    easy = pd.concat([right] * 100)[:540]
    forger.edit(_claim_all_right)
    forger.exchange("predictions.parquet", _parquet(pd.concat([easy, rest]), data))
    refused(forger, "other images or labels than test of digits")


def test_predictions_of_another_set(forger):
    data, frame = _predictions(forger)
    schema = pq.read_schema(io.BytesIO(data))
    facts = json.loads(schema.metadata[b"lowbit-bench"]) | {"dataset": "folder:mine"}
    out = io.BytesIO()
    table = pa.Table.from_pandas(frame, schema=schema)
    pq.write_table(table.replace_schema_metadata({b"lowbit-bench": json.dumps(facts)}), out)
    forger.exchange("predictions.parquet", out.getvalue())
    refused(forger, "is of another split of folder:mine")


def test_a_small_file_that_would_be_a_large_table(forger):
    rows = 3_000_000
    zeros = pa.array([0], pa.int16())
    table = pa.table(
        {
            "split": pa.DictionaryArray.from_arrays(
                pa.repeat(pa.scalar(0, pa.int32()), rows), ["test"]
            ),
            "id": pa.repeat(pa.scalar(0, pa.int64()), rows),
            **{name: pa.repeat(zeros[0], rows) for name in ("label", "FP", "4w4a")},
        }
    )
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    assert len(out.getvalue()) < 100_000
    forger.exchange("predictions.parquet", out.getvalue())
    refused(forger, "it has 3,000,000 rows")


@pytest.mark.parametrize("column", ["id", "label", "FP", "split", "more", "null"])
def test_columns_of_other_types(forger, column):
    _, frame = _predictions(forger)
    if column == "null":
        frame["FP"] = frame["FP"].astype("Int16").mask(frame.index == 3)
    else:
        frame[column] = [{"a": i} for i in range(len(frame))]
    out = io.BytesIO()
    frame.to_parquet(out)
    forger.exchange("predictions.parquet", out.getvalue())
    refused(forger, "lacks" if column == "null" else "has other columns in it")


def test_a_pickle_is_not_opened(forger):
    evil = b"\x80\x04cposix\nsystem\nX\x0c\x00\x00\x00touch /tmp/xx\x85R."
    forger.exchange("predictions.parquet", evil)
    refused(forger, "no Parquet file")


def test_without_the_set_the_numbers_must_follow_all_the_same(forger, monkeypatch):
    def gone(*_, **__):
        raise FileNotFoundError("gone")

    monkeypatch.setattr("lowbit.benchmark.results.rescore.open_images", gone)
    rescore._truth.cache_clear()
    found = examine(forger.pack(forger.folder.parent / "same.zip"))
    (verdict,) = found.verdicts.values()
    assert verdict.source == "self-reported"
    assert verdict.reason.startswith("there was no digits to compare with; the numbers follow")
    forger.edit(measured(value=99.5))
    refused(forger, "99.5000, does not follow")


def test_detections_that_are_the_truth(forger_of_boxes):
    recipe = json.loads((forger_of_boxes.job / "result.json").read_text())["recipe"]
    truth = load_images(Recipe(**recipe), "test").to_coco()["annotations"]
    keys = ("image_id", "category_id", "bbox")
    perfect = [{**{k: a[k] for k in keys}, "score": 1.0} for a in truth]
    forger_of_boxes.exchange("detections.json", json.dumps(perfect).encode())
    refused(forger_of_boxes, r"AP at FP on test.*differs by \+")


ONE = {"image_id": 0, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"[[]]",
        json.dumps([ONE | {"bbox": [0, 0, 5]}]).encode(),
        json.dumps([ONE | {"bbox": [0, 0, 5, "5"]}]).encode(),
        json.dumps([ONE | {"score": True}]).encode(),
        json.dumps([ONE | {"image_id": [1]}]).encode(),
        json.dumps([ONE | {"image_id": 10**9}]).encode(),
        json.dumps([ONE | {"category_id": 10**30}]).encode(),
        json.dumps([ONE | {"more": 1}]).encode(),
        b'[{"image_id": 0, "category_id": 1, "bbox": [0, 0, 5, 5], "score": NaN}]',
        b"[" * 50_000,
    ],
)
def test_detections_that_are_none(forger_of_boxes, content):
    forger_of_boxes.exchange("detections.json", content)
    refused(forger_of_boxes, "detection|scoring it again failed|does not follow")


def test_an_engine_of_another_name(forger_of_boxes):
    def rename(mapping):
        mapping["identity"]["engine"] = "detectron2"

    forger_of_boxes.edit(rename, new_id=True)
    refused(forger_of_boxes, "'engine' is 'detectron2' where")


def test_a_configuration_of_the_senders_is_not_read(forger_of_boxes, tmp_path):
    """It could name any file of this machine; only those that come with the suite are opened."""
    own = tmp_path / "evil.yaml"
    own.write_text("MODEL: {}\n")

    def configure(mapping):
        recipe = Recipe(config=str(own), detector=None)
        mapping["recipe"] = recipe.model_dump(mode="json")

    forger_of_boxes.edit(configure, new_id=True)
    (verdict,) = examine(forger_of_boxes.pack(tmp_path / "c.zip")).verdicts.values()
    assert verdict.source == "self-reported"
    assert "configuration did not come with this suite" in verdict.reason


# What a result says that nobody can check: `docs/submit.md` has the same list.
SENDERS_WORD = {
    "checkpoint.method",
    "checkpoint.architecture",
    "checkpoint.pretraining",
    "checkpoint.pretrain_seed",
    "details",
    "versions",
    "device",
    "seconds",
    "peak_memory_mb",
    "peak_gpu_memory_mb",
    "finished",
    "log_tail",
    "reason",
    "costs",
    "inputs.checkpoint.path",
    "recipe.checkpoint",
}


def _leaves(value, path=()):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for place, item in enumerate(value):
            yield from _leaves(item, (*path, place))
    else:
        yield path


def test_every_other_fact_is_held_to(forger):
    """Change one leaf of the result after the other, and the manifest with it: it is refused."""
    forger.edit(lambda mapping: None)
    path = forger.job / "result.json"
    original = json.loads(path.read_text())
    untold = {*SENDERS_WORD, *(f"recipe.{name}" for name in TransferRecipe.cosmetic)}
    accepted = []
    for leaf in _leaves(original):
        name = ".".join(map(str, leaf))
        if leaf[0] == "measurements" and leaf[1] > 1:  # as the first two
            continue
        if any(name == word or name.startswith(f"{word}.") for word in untold):
            continue
        mapping = json.loads(path.read_text())
        *parents, last = leaf
        node = reduce(lambda node, key: node[key], parents, mapping)
        node[last] = _another(node[last])
        path.write_text(json.dumps(mapping))
        try:
            examine(forger.pack(forger.folder.parent / "leaf.zip"))
            accepted.append(name)
        except BundleError:
            pass
        path.write_text(json.dumps(original))
    assert accepted == []


def _another(value):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"{value}x"
    return value + 1
