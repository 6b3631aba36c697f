"""Which published numbers a job is to reproduce."""

import pytest

from lowbit.benchmark.published.reproduction_targets import claimed_rows
from lowbit.benchmark.recipes.errors import RecipeError

SSQL = {"paper": "SSQL", "table": "Table 11"}
PETS = {"dataset": "Pets", "protocol": "imagenet_pretrain>linear"}


def suite(**changes):
    made = {"name": "made", "pretrain": "pretrain.yaml", "published": {**SSQL, "system": "SSQL"}}
    entry = {"recipe": "transfer.yaml", "published": PETS}
    return {
        "precisions": ["FP", "2w2a"],
        "checkpoints": [{**made, **changes.pop("checkpoint", {})}],
        "transfer": [{**entry, **changes.pop("entry", {})}],
        **changes,
    }


def published(planned):
    return [job.published for job in planned.jobs.values() if job.stage == "transfer"]


def test_a_job_reproduces_what_its_checkpoint_and_its_entry_name(bench):
    (found,) = published(bench.plan(**suite()))
    (row,) = claimed_rows(found, ["FP", "2w2a"])  # nothing is published at 2w2a
    assert (row["system"], row["dataset"], row["precision"]) == ("SSQL", "Pets", "FP")


def test_it_is_no_part_of_the_job(bench):
    without = bench.plan(**suite(checkpoint={"published": None}))
    assert set(without.jobs) == set(bench.plan(**suite()).jobs)
    assert published(without) == [None]


def test_columns_that_both_name_have_to_agree(bench):
    both = {"entry": {"published": {**PETS, "system": ["SimSiam", "SSQL"]}}}
    (found,) = published(bench.plan(**suite(**both)))
    assert found["system"] == ["SSQL"]


def test_a_checkpoint_of_the_users_reproduces_nothing(bench):
    mine = bench.folder / "mine.pth"
    mine.write_bytes(b"weights")
    planned = bench.plan(
        **suite(
            checkpoints=[
                *suite()["checkpoints"],
                {"name": "mine", "path": "mine.pth"},
            ]
        )
    )
    by_name = {j.label.checkpoint: j.published for j in planned.jobs.values() if j.inputs}
    assert by_name["mine"] is None and by_name["made"] is not None


def test_networks_have_the_numbers_of_their_column(bench):
    planned = bench.plan(
        **suite(
            checkpoint={
                "architectures": {"ResNet-34": "resnet34_cifar", "ResNet-74": "resnet74"},
                "published": {"paper": "CQ", "system": "SimCLR"},
            },
            entry={"published": {"table": "Table 5"}, "checkpoints": ["made"]},
        )
    )
    values = {
        job.label.checkpoint: [row["value"] for row in claimed_rows(job.published, ["FP"])]
        for job in planned.jobs.values()
        if job.stage == "transfer"
    }
    assert values == {"made ResNet-34": ["65.92"], "made ResNet-74": ["52.96"]}
    recipes = [job.recipe for job in planned.jobs.values() if job.stage == "pretrain"]
    assert [recipe["architecture"] for recipe in recipes] == ["resnet34_cifar", "resnet74"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"entry": {"published": {"tables": "Table 11"}}},
            r"transfer.0 .*no column 'tables'.*'table'",
        ),
        (
            {"entry": {"published": {"dataset": "Pet"}}},
            r"transfer.0 .*has dataset 'Pet'.*Did you mean 'Pets'",
        ),
        (
            {"entry": {"published": {"dataset": "Moon"}}},
            r"transfer.0 .*has dataset 'Moon'.*There are: .*Pets",
        ),
        (
            {"checkpoint": {"published": {**SSQL, "system": "SSQLL"}}},
            r"checkpoint 'made': published: no published score has system 'SSQLL'",
        ),
        ({"precisions": ["2w2a"]}, "select no published number at their precisions"),
        ({"entry": {"published": {"table": "Table 12"}}}, "select no published number"),
    ],
)
def test_what_was_never_published_is_refused_when_planned(bench, changes, said):
    with pytest.raises(RecipeError, match=said):
        bench.plan(**suite(**changes))


def test_another_experiment_from_the_command_line_reproduces_nothing(bench):
    from lowbit.benchmark.planning.plan import plan

    path = bench.suite(**suite(transfer=[{**suite()["transfer"][0], "overrides": {"lr": 1.0}}]))
    for words, kept in (
        ([], True),
        (["seeds", "[3]"], True),
        (["transfer.0.overrides.name", "mine"], True),
        (["transfer.0.overrides.lr", "2"], False),
        (["checkpoints.0.overrides.lr", "2"], False),
    ):
        assert (published(plan(path, words)) != [None]) == kept, words


def test_one_job_of_two_claims_is_refused(bench):
    entries = [
        {"recipe": "transfer.yaml", "published": PETS},
        {"recipe": "transfer.yaml", "published": {**PETS, "dataset": "DTD"}},
    ]
    with pytest.raises(RecipeError, match="is planned twice, to reproduce"):
        bench.plan(**suite(transfer=entries))
