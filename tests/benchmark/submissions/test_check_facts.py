"""What a result says of itself is worked out again for every recipe that comes with the suite."""

from pathlib import Path

import pytest
from PIL import Image

from lowbit.benchmark.planning.job import File, Job, Label
from lowbit.benchmark.recipes.yaml_files import load_yaml, validate
from lowbit.benchmark.results.build_result import completed
from lowbit.benchmark.results.result_file import Result
from lowbit.benchmark.submissions.bundle_writer import portable
from lowbit.benchmark.submissions.check_facts import check_id, check_identity, local
from lowbit.benchmark.submissions.manifest import BundleError
from tests.benchmark.bundles import USAGE, ids

ROOT = Path(__file__).resolve().parents[3]
FAMILIES = ("pretrain", "transfer", "detection")
SHIPPED = [
    path.relative_to(ROOT)
    for family in FAMILIES
    for path in sorted((ROOT / "configs" / family).glob("*.yaml"))
    if not path.name.startswith("_")
]


def result_of(stage, folder, **fields):
    """Return what a job of this recipe would leave, on its sender's side, without its numbers."""
    network = folder / "net.pth"
    network.write_bytes(b"weights")
    inputs = {}
    if stage != "pretrain" and not fields.get("random_backbone"):
        inputs["checkpoint"] = File.at(network)
    if fields.get("method", "fp") != "fp" or "detector" in fields:
        inputs["detector"] = File.at(network)
    fields = {**fields, **{name: str(source.path) for name, source in inputs.items()}}
    label = Label("mine", "SSQL", "resnet18")
    job = Job.plan(stage, validate(stage, fields), inputs=inputs, label=label)
    returned = {"measurements": []}
    files = {name: source.path for name, source in inputs.items()}
    result = completed(job, returned, inputs=files, folder=folder, usage=USAGE)
    return job, portable(result)


def checked(result, data_root):
    return check_identity(result, local(result, check_id(result), data_root=data_root))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_recipe_of_the_suite(path, tmp_path, monkeypatch):
    monkeypatch.setenv("LOWBIT_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "none"))
    job, result = result_of(path.parts[1], tmp_path, **load_yaml(ROOT / path))
    if not job.identity:  # its set is not here: it cannot have run
        assert job.missing or "FileNotFoundError" in job.problem
        return
    why = checked(result, tmp_path / "none")
    assert why is None or "to compare with" in why


def test_a_set_that_the_receiver_has_not(tmp_path):
    fields = {"dataset": "folder:birds", "architecture": "resnet18_cifar"}
    birds = tmp_path / "birds"
    for part in ("train", "test"):
        for name in "ab":
            (birds / part / name).mkdir(parents=True)
            for i in range(12):
                Image.new("RGB", (16, 16)).save(birds / part / name / f"{i}.png")
    _, result = result_of("transfer", tmp_path, **fields, data_root=str(tmp_path))
    assert checked(result, tmp_path) is None
    assert checked(result, tmp_path / "none") == "there was no folder:birds to compare with"
    forged = _forged(result, policy_fingerprint="0" * 12)
    with pytest.raises(BundleError, match="'policy_fingerprint' is '000000000000'"):
        checked(forged, tmp_path / "none")


@pytest.mark.parametrize("dataset", ["coco", "voc0712"])
def test_annotations_that_the_receiver_has_not(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("lowbit.detection.stage.split_sha256", lambda recipe: "5" * 64)
    fields = {"dataset": dataset, "engine": "torchvision", "test_size": 800}
    _, result = result_of("detection", tmp_path, **fields)
    monkeypatch.undo()
    assert checked(result, tmp_path) == f"there was no {dataset} to compare with"
    forged = _forged(result, engine="detectron2")
    with pytest.raises(BundleError, match="'engine' is 'detectron2'"):
        checked(forged, tmp_path)


def test_an_engine_left_open_is_the_one_that_ran(tmp_path):
    _, result = result_of("detection", tmp_path, engine="auto")
    for engine in ("torchvision", "detectron2"):
        assert checked(_forged(result, engine=engine), tmp_path) is None
    with pytest.raises(BundleError, match="engine 'mine' is unknown"):
        checked(_forged(result, engine="mine"), tmp_path)


def test_a_teacher_is_known_by_its_hash_and_never_opened(tmp_path):
    teacher = tmp_path / "teacher.pth"
    teacher.write_bytes(b"teacher")
    distilled = {"protocol": "qat", "dataset": "digits", "distillation": {"teacher": str(teacher)}}
    _, result = result_of("transfer", tmp_path, **distilled)
    teacher.unlink()
    assert checked(result, tmp_path) is None


def test_an_earlier_releases_result_is_not_believed_and_not_refused(tmp_path):
    """A section of its recipe had fewer keys, and its identity a fact less."""
    _, result = result_of("transfer", tmp_path, dataset="digits")
    mapping = result.model_dump(mode="json")
    del mapping["recipe"]["augmentation"]["flip"]
    del mapping["identity"]["training"]
    earlier = Result.model_validate(mapping | ids(mapping))
    assert checked(earlier, tmp_path) == (
        "it is of an earlier release, which did not say its training"
    )


@pytest.mark.detectron2
def test_a_configuration_of_the_suite_is_read_and_anothers_is_not(tmp_path, monkeypatch):
    pytest.importorskip("detectron2")
    monkeypatch.setattr(
        "lowbit.detection.with_detectron2.config_job.missing_data", lambda recipe: None
    )
    monkeypatch.setattr(
        "lowbit.detection.with_detectron2.config_job.split_sha256", lambda recipe: "5" * 64
    )
    name = "configs/detection/detectron2/retinanet_R_18_FPN_90k_lsq_w4a4.yaml"
    for config in (name, str(ROOT / name)):
        _, result = result_of("detection", tmp_path, config=config, detector="x")
        assert result.recipe["config"] == name
        assert checked(result, tmp_path) is None
    with pytest.raises(BundleError, match="'config_sha256'"):
        checked(_forged(result, config_sha256="0" * 64), tmp_path)
    elsewhere = tmp_path / "mine.yaml"
    elsewhere.write_text(f"_BASE_: {ROOT / name}\n")
    _, result = result_of("detection", tmp_path, config=str(elsewhere), detector="x")
    assert result.recipe["config"] == "mine.yaml"
    assert checked(result, tmp_path) == (
        "its Detectron2 configuration did not come with this suite"
    )


def _forged(result, **facts):
    mapping = result.model_dump(mode="json")
    mapping["identity"] |= facts
    return Result.model_validate(mapping | ids(mapping))


def test_what_a_machine_measured_of_itself_is_not_taken(tmp_path):
    recipe = load_yaml(ROOT / "configs/transfer/digits_linear.yaml")
    _, result = result_of("transfer", tmp_path, **recipe)
    with pytest.raises(BundleError, match="of the machine that they were measured on"):
        check_id(result.model_copy(update={"stage": "deploy"}))
