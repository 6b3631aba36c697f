"""What a suite leaves out of the product of its lists."""

import pytest

from lowbit.benchmark.recipes.errors import RecipeError

TWO = [
    {"name": "A", "pretrain": "pretrain.yaml"},
    {"name": "B", "pretrain": "pretrain.yaml", "overrides": {"lr": 2}},
]
LISTS = {"seeds": [0, 1], "precisions": ["FP", "4w4a"], "checkpoints": TWO}


def cells(planned):
    return {
        (job.label.checkpoint, job.recipe["seed"], precision)
        for job in planned.jobs.values()
        if job.stage != "pretrain"
        for precision in job.precisions
    }


ALL = {(name, seed, p) for name in "AB" for seed in (0, 1) for p in ("FP", "4w4a")}


@pytest.mark.parametrize(
    ("excluded", "gone"),
    [
        ({"checkpoint": "A", "seed": 1}, {("A", 1, "FP"), ("A", 1, "4w4a")}),
        ({"precision": "4w4a", "checkpoint": "B"}, {("B", 0, "4w4a"), ("B", 1, "4w4a")}),
        ({"precision": "W4A4", "seed": [1, 0]}, {c for c in ALL if c[2] == "4w4a"}),
        ({"checkpoint": ["A", "B"], "seed": 0}, {c for c in ALL if c[1] == 0}),
        ({"recipe": "transfer", "dataset": "fakes", "seed": 0}, {c for c in ALL if c[1] == 0}),
        ({"protocol": "fake", "method": "Fake", "seed": 0}, {c for c in ALL if c[1] == 0}),
    ],
)
def test_what_matches_all_of_a_mapping_is_left_out(bench, excluded, gone):
    assert cells(bench.plan(**LISTS, exclude=[excluded])) == ALL - gone


def test_a_job_of_the_precisions_left_is_the_job_of_a_suite_without_the_others(bench):
    some = bench.plan(**LISTS, exclude=[{"precision": "4w4a"}])
    assert set(some.jobs) == set(bench.plan(**LISTS | {"precisions": ["FP"]}).jobs)


def test_pretraining_that_no_job_uses_any_more_is_left_out_too(bench):
    found = bench.plan(**LISTS, exclude=[{"checkpoint": "A"}])
    assert {job.label.checkpoint for job in found.jobs.values()} == {"B"}


def test_what_starts_from_an_excluded_detector_goes_with_it(bench):
    found = bench.plan(
        checkpoints=TWO,
        detection=[
            {"id": "fp", "recipe": "detection.yaml"},
            {"recipe": "detection.yaml", "detector": "fp", "overrides": {"lr": 5}},
        ],
        exclude=[{"stage": "detection", "checkpoint": "A"}],
    )
    detectors = [job for job in found.jobs.values() if job.stage == "detection"]
    assert [job.label.checkpoint for job in detectors] == ["B", "B"]


@pytest.mark.parametrize(
    ("excluded", "said"),
    [
        ({"checkpoint": "AA"}, "exclude.0 {'checkpoint': 'AA'} matches no job.*There are: A, B"),
        ({"dataset": "fake"}, "No job has dataset fake. Did you mean 'fakes'"),
        ({"seed": 7, "checkpoint": "A"}, "No job has seed 7. There are: 0, 1"),
        ({"stage": "transfer", "engine": "torchvision"}, "No job has engine torchvision"),
        ({}, "it names nothing, and would leave out everything"),
        ({"checkpoints": "A"}, "exclude.0.checkpoints: unknown key. Did you mean 'checkpoint'"),
        ({"precision": "four"}, "exclude.0.precision"),
    ],
)
def test_an_exclusion_that_excludes_nothing_is_refused(bench, excluded, said):
    with pytest.raises(RecipeError, match=said.replace("{", r"\{").replace("}", r"\}")):
        bench.plan(**LISTS, exclude=[excluded])


def test_facts_that_exist_but_not_together_are_refused(bench):
    entries = [{"recipe": "transfer.yaml", "checkpoints": ["A"]}]
    with pytest.raises(RecipeError, match="no job has all of them"):
        bench.plan(
            **LISTS | {"seeds": [0]},
            transfer=[*entries, {"recipe": "transfer.yaml", "checkpoints": ["B"], "seeds": [1]}],
            exclude=[{"checkpoint": "A", "seed": 1}],
        )
