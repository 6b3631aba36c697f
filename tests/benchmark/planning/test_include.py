"""Suites of suites."""

import pytest
import yaml

from lowbit.benchmark.planning.plan import plan
from lowbit.benchmark.recipes.errors import RecipeError


def write(bench, name, **keys):
    path = bench.folder / "parts" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({"name": name, **keys}))
    return path


def part(bench, name="part", **keys):
    given = {
        "checkpoints": [{"name": "made", "pretrain": "../pretrain.yaml"}],
        "transfer": [{"recipe": "../transfer.yaml"}],
    }
    return write(bench, name, **{k: v for k, v in {**given, **keys}.items() if v is not None})


def whole(bench, *names, **keys):
    path = bench.folder / "whole.yaml"
    path.write_text(
        yaml.safe_dump({"name": "whole", "include": [f"parts/{n}.yaml" for n in names], **keys})
    )
    return path


def test_the_jobs_of_a_suite_are_its_parts_jobs_each_once(bench):
    one = part(bench, "one", reported=[{"paper": "SSQL", "table": "Table 11"}])
    two = part(bench, "two", seeds=[0, 1], reported=[{"paper": "SSQL", "table": "Table 11"}])
    found = plan(whole(bench, "one", "two"))
    assert set(found.jobs) == {*plan(one).jobs, *plan(two).jobs}
    assert len(found.jobs) == 3  # one pretraining, seeds 0 and 1
    assert found.name == "whole" and len(found.reported) == 1


def test_what_a_suite_says_holds_in_its_parts(bench):
    part(bench, seeds=[0], precisions=["FP"])
    mine = bench.folder / "mine.pth"
    mine.write_bytes(b"weights")
    found = plan(
        whole(
            bench,
            "part",
            seeds=[3],
            precisions=["FP", "4w4a"],
            exclude=[{"checkpoint": "made", "precision": "4w4a"}],
        ),
        [f"checkpoint={mine}", "name=mine"],
    )
    cells = {
        (job.label.checkpoint, job.recipe["seed"], job.precisions)
        for job in found.jobs.values()
        if job.stage == "transfer"
    }
    assert cells == {("made", 3, ("FP",)), ("mine", 3, ("FP", "4w4a"))}


def test_what_it_does_not_say_stays_each_parts_own(bench):
    part(bench, "one", seeds=[4], precisions=["FP"])
    part(bench, "two", seeds=[5], precisions=["4w4a"])
    jobs = plan(whole(bench, "one", "two")).jobs.values()
    cells = {(j.recipe["seed"], j.precisions) for j in jobs if j.stage == "transfer"}
    assert cells == {(4, ("FP",)), (5, ("4w4a",))}


def test_paths_are_relative_to_the_file_that_has_them(bench):
    part(bench, checkpoints=None)
    found = plan(whole(bench, "part", checkpoints=[{"name": "own", "pretrain": "pretrain.yaml"}]))
    assert {job.label.checkpoint for job in found.jobs.values()} == {"own"}


def test_one_name_for_two_weights_is_refused(bench):
    part(bench, "one")
    other = [{"name": "made", "pretrain": "../pretrain.yaml", "overrides": {"lr": 9}}]
    part(bench, "two", checkpoints=other)
    with pytest.raises(RecipeError, match="Two suites use the name 'made' for different weights"):
        plan(whole(bench, "one", "two"))
    with pytest.raises(RecipeError, match="both have a checkpoint 'made'"):
        plan(whole(bench, "one", checkpoints=[{"name": "made", "pretrain": "pretrain.yaml"}]))


def test_suites_that_include_each_other_are_refused(bench):
    part(bench, "one", include=["two.yaml"])
    part(bench, "two", include=["one.yaml"], checkpoints=None)
    with pytest.raises(RecipeError, match=r"include each other: .*one.yaml -> .*two.yaml -> "):
        plan(whole(bench, "one"))


def test_suites_that_include_each_other_ever_more_often_are_refused(bench):
    """Nine files that include the next one twice would be 511 suites."""
    part(bench, "8")
    for number in range(7, -1, -1):
        part(
            bench, str(number), include=[f"{number + 1}.yaml"] * 2, checkpoints=None, transfer=None
        )
    with pytest.raises(RecipeError, match=r"the 201th suite of this plan.*nothing was run"):
        plan(whole(bench, "0"))


@pytest.mark.parametrize("name", ["a\0b", "~nobody-of-that-name/a.yaml", "x" * 300])
@pytest.mark.parametrize("key", ["include", "recipe", "path"])
def test_a_path_that_is_none_is_a_wrong_key(bench, name, key):
    keys = {
        "include": {"include": [name]},
        "recipe": {"transfer": [{"recipe": name}]},
        "path": {"checkpoints": [{"name": "mine", "path": name}]},
    }
    part(bench, **keys[key])
    with pytest.raises(RecipeError, match=rf"{key}.*is no file name"):
        plan(whole(bench, "part"))


def test_a_part_that_is_not_there_is_named(bench):
    part(bench, "one")
    with pytest.raises(RecipeError, match=r"no file .*ones.yaml.*Did you mean 'one.yaml'"):
        plan(whole(bench, "ones"))


def test_a_part_of_a_part_keeps_its_own_seeds(bench):
    part(bench, "inner", seeds=[4, 5])
    part(bench, "outer", include=["inner.yaml"], checkpoints=None, transfer=None)
    jobs = plan(whole(bench, "outer")).jobs.values()
    assert {job.recipe["seed"] for job in jobs if job.stage == "transfer"} == {4, 5}
