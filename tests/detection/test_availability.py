"""A plan says which images are not there, and does not fail for it."""

import pytest

from lowbit.benchmark.planning.job import Job, Label
from lowbit.detection import missing_data
from tests.detection.annotated_folders import annotation, coco_content, write_coco, write_voc


@pytest.fixture
def plan(make_recipe, tmp_path, monkeypatch):
    """Return a function that plans a job on a data set; nothing else is where images could be."""
    monkeypatch.setenv("LOWBIT_DATA", str(tmp_path))
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    monkeypatch.chdir(tmp_path)

    def make(dataset: str) -> Job:
        recipe = make_recipe(dataset=dataset)
        assert (
            missing_data(recipe)
            == Job.plan("detection", recipe, inputs={}, label=Label("own")).missing
        )
        return Job.plan("detection", recipe, inputs={}, label=Label("own"))

    return make


@pytest.mark.parametrize("dataset", ["coco", "voc0712", "coco:pets", "voc:farm"])
def test_images_that_are_not_there_are_told_and_how_to_get_them(plan, tmp_path, dataset):
    job = plan(dataset)
    assert str(tmp_path) in job.missing and "nothing was loaded" in job.missing
    assert job.problem is None and dict(job.identity) == {}


def test_images_that_are_there_are_part_of_the_jobs_identity(plan, tmp_path):
    content = coco_content(
        [annotation(i, i, 1, [1, 1, 4, 4]) for i in range(1, 13)], images=range(1, 13)
    )
    for part in ("train", "val"):
        write_coco(tmp_path / "pets", part, content, images=False)
    job = plan("coco:pets")
    assert job.missing is None and len(job.identity["split_sha256"]) == 64
    write_coco(tmp_path / "pets", "val", {**content, "annotations": content["annotations"][1:]})
    assert plan("coco:pets").id != job.id
    assert plan("digit-scenes").missing is None


def test_a_damaged_set_is_not_missing(plan, tmp_path):
    names = [f"{number:02d}" for number in range(12)]
    objects = {name: [("cow", (1, 1, 9, 9), 0)] for name in names}
    root = write_voc(tmp_path / "farm", objects, {"train": names, "test": names})
    assert plan("voc:farm").problem is None
    (root / "Annotations" / "00.xml").write_text("<annotation>")
    job = plan("voc:farm")
    assert job.missing is None and "this is not XML" in job.problem
