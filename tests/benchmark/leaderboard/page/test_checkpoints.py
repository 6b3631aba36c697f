"""A checkpoint by itself: its loading, numbers, costs, pictures, jobs and citations."""

import base64
import io
import json

import pytest
from PIL import Image

from lowbit.benchmark.leaderboard.page import checkpoints
from lowbit.benchmark.leaderboard.page.checkpoints import Thumbnails, pictures_of
from lowbit.benchmark.leaderboard.page.citations import citations
from lowbit.benchmark.results.result_file import Result, write_result
from tests.benchmark.board_frames import make_frame, row, seeds
from tests.benchmark.page_sources import make_source

REPORT = {
    "format": "moco",
    "matched": 60,
    "total": 62,
    "share": 0.995,
    "guessed": True,
    "missing": ["layer4.0.bn1.weight", "layer4.0.bn1.bias"],
    "unused": [f"head.{n}" for n in range(9)],
    "warnings": ["BatchNorm statistics are those of an untrained network"],
}


def _write(folder, job_id, **changes):
    fields = {"schema_version": 2, "question": "0" * 12, "stage": "transfer", "protocol_version": 1}
    fields |= {"status": "completed", "precisions": ("4w4a",), "recipe": {}, "inputs": {}}
    fields |= {"identity": {}, "checkpoint": {"name": "ssql-r10", "sha256": "a" * 64}}
    (folder / job_id).mkdir(parents=True)
    result = Result.model_validate({**fields, "job_id": job_id, **changes})
    write_result(folder / job_id, result)


def _one(rows, **source):
    (found,) = checkpoints.content(make_source(rows, **source))["checkpoints"]
    return found


def test_the_report_of_its_loading(tmp_path):
    _write(
        tmp_path,
        "0" * 12,
        details={"load_report": REPORT},
        versions={"torch": "2.14.1", "timm": None},
        device="cpu",
    )
    loading = _one([row(job_id="0" * 12)], runs_dir=tmp_path)["loading"]
    assert (loading["matched"], loading["total"], loading["format"]) == (60, 62, "moco")
    assert loading["unused"] == {"count": 9, "names": [f"head.{n}" for n in range(6)]}
    assert loading["warnings"] == REPORT["warnings"] and loading["sha256"] == "a" * 64
    assert loading["versions"] == {"torch": "2.14.1"}


def test_who_pretrained_it(tmp_path):
    made = {"path": "x", "sha256": "a" * 64, "job_id": "f" * 12}
    _write(tmp_path, "0" * 12, inputs={"checkpoint": made})
    recipe = {"name": "digits_ssql", "epochs": 30, "batch_size": 64}
    _write(tmp_path, "f" * 12, stage="pretrain", recipe=recipe, seconds=61.5)
    pretraining = _one([row(job_id="0" * 12)], runs_dir=tmp_path)["pretraining"]
    assert pretraining == {"job": "f" * 12, "recipe": recipe, "seconds": 61.5}


def test_without_its_folder_the_numbers_stay(tmp_path):
    found = _one(seeds((90.0, 91.0)), runs_dir=tmp_path)
    assert found["loading"] is None and found["pretraining"] is None and found["pictures"] == []
    (line,) = found["lines"]
    (cell,) = line["cells"]
    assert (cell[0], cell[1], *cell[4:]) == (90.5, 0.7071, 2, 1)
    assert line["jobs"] == ["000000000000", "000000000001"]


def test_lines_are_of_test_images_and_name_their_jobs():
    content = checkpoints.content(make_source(make_frame()))
    by_name = {one["name"]: one for one in content["checkpoints"]}
    lines = by_name["ssql-r10"]["lines"]
    assert len(lines) == 6 + 9  # data sets x protocols; three detectors with three metrics
    assert {line["split"] for line in lines} == {"test"}
    tuned = next(x for x in lines if (x["dataset"], x["protocol"]) == ("digits", "finetune"))
    assert tuned["jobs"] == ["ssqlitsfin0", "ssqlitsfin1", "ssqlitsfin2"]
    detector = next(x for x in lines if x["training"] == "sgdt")
    assert detector["jobs"] == ["detssqlsgdt0", "detssqlsgdt1"]


def test_what_was_sent_in_is_shown_without_a_command():
    (line,) = _one([row(source="self-reported")])["lines"]
    assert line["source"] == "self-reported" and line["jobs"] == []


def test_costs_by_policy_and_image_size():
    costs = {"FP": (4e6, 3e9), "4w4a": (1e6, 1e8)}
    rows = [
        row(precision=p, job_id="0" * 12, weight_bytes=size, bit_operations=work)
        for p, (size, work) in costs.items()
    ]
    rows.append(row(precision="8w8a", dataset="dtd", job_id="1" * 12))
    found = _one(rows)["costs"]
    assert found == [
        {
            "policy": "ssql",
            "image_size": "32",
            "at": [[4_000_000, 3_000_000_000], None, [1_000_000, 100_000_000]],
        }
    ]


def test_pictures_are_small_and_of_measured_detectors(tmp_path):
    job = "d" * 12
    artifacts = {f"picture_{n}": f"pictures/picture_{n}.jpg" for n in range(4)}
    _write(tmp_path, job, stage="detection", artifacts=artifacts)
    (tmp_path / job / "pictures").mkdir()
    for path in artifacts.values():
        Image.effect_noise((1600, 800), 60).save(tmp_path / job / path)
    detector = {"task": "detection", "protocol": "retinanet", "training": "lsq", "metric": "AP"}
    found = _one([row(job_id=job, **detector)], runs_dir=tmp_path)["pictures"]
    assert len(found) == 2
    assert found[0]["title"] == "digits · retinanet · lsq · 4w4a"
    head, _, data = found[0]["image"].partition(",")
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == "data:image/jpeg;base64"
    assert picture.size == (480, 240) == (found[0]["width"], found[0]["height"])


def test_the_budget_of_pictures_ends(tmp_path):
    Image.effect_noise((400, 400), 60).save(tmp_path / "a.jpg")
    thumbnails = Thumbnails(budget=10_000)
    made = [thumbnails.make(tmp_path / "a.jpg") for _ in range(5)]
    assert made[0] is not None and made[-1] is None


def test_what_is_no_picture_is_left_out(tmp_path):
    (tmp_path / "a.jpg").write_text("<script>")
    assert Thumbnails().make(tmp_path / "a.jpg") is None
    assert Thumbnails().make(tmp_path / "missing.jpg") is None


def test_no_picture_is_read_from_outside_its_folder(tmp_path):
    artifacts = {
        "picture_1": "../../secret.jpg",
        "picture_2": "/etc/secret.jpg",
        "picture_3": "pictures/a.jpg",
        "checkpoint": "detector.pth",
    }
    found = [path.relative_to(tmp_path).as_posix() for path in pictures_of(tmp_path, artifacts)]
    assert found == ["etc/secret.jpg", "pictures/a.jpg"]


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("SSQL", ["chen2021simsiam", "cao2022ssql"]),
        ("CQ-C", ["chen2020simclr", "fu2022contrastivequant"]),
        ("MoCov3+SSQL", ["chen2021mocov3", "cao2022ssql"]),
        ("untrained", []),
    ],
)
def test_a_method_cites_its_framework_and_its_pairing(method, keys):
    found = [entry.split("{")[1].split(",")[0] for entry in citations({method}, {"-"})]
    assert found == ["lowbit-bench", *keys]


def test_bibtex_is_balanced():
    methods = {"SimSiam", "SimCLR", "BYOL", "MoCov2", "MoCov3", "SSQL", "CQ-C"}
    for entry in citations(methods, {"lsq", "tr", "coquant", "ssql", "cq"}):
        assert entry.startswith("@") and entry.count("{") == entry.count("}")


def test_content_is_json_and_nothing_scored_is_no_section():
    source = make_source(make_frame())
    assert json.dumps(checkpoints.content(source), allow_nan=False)
    assert checkpoints.content(make_source(make_frame().iloc[:0])) == {}
