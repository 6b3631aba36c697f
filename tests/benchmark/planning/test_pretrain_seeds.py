"""Several pretrainings of a checkpoint: their jobs, names and labels."""

import pytest

from lowbit.benchmark.recipes.errors import RecipeError

CHECKPOINTS = [
    {"name": "A", "pretrain": "pretrain.yaml"},
    {"name": "B", "pretrain": "pretrain.yaml", "overrides": {"lr": 2}},
]


def _labels(planned, stage="transfer"):
    jobs = [job for job in planned.jobs.values() if job.stage == stage]
    return sorted(
        (j.label.checkpoint, j.label.pretraining, j.label.pretrain_seed, j.recipe["seed"])
        for j in jobs
    )


def test_every_seed_is_a_pretraining_that_meets_every_recipe(bench):
    planned = bench.plan(
        seeds=[5, 6],
        pretrain_seeds=[0, 3],
        checkpoints=CHECKPOINTS,
        transfer=[{"recipe": "transfer.yaml"}],
    )
    pretrained = [(f"{name} seed {seed}", name, seed, seed) for name in "AB" for seed in (0, 3)]
    assert _labels(planned, "pretrain") == pretrained
    scored = [
        (label, name, seed, scoring) for label, name, seed, _ in pretrained for scoring in (5, 6)
    ]
    assert _labels(planned) == scored
    by_id = planned.jobs
    for job in by_id.values():
        if job.stage == "transfer":
            (source,) = job.needs
            assert by_id[source].label.checkpoint == job.label.checkpoint
    assert len({job.question for job in by_id.values()}) == len(by_id)


def test_one_pretraining_keeps_the_name_and_the_jobs_of_a_suite_without(bench):
    suite = {"checkpoints": CHECKPOINTS[:1], "transfer": [{"recipe": "transfer.yaml"}]}
    plain, one = bench.plan(**suite), bench.plan(pretrain_seeds=[0], **suite)
    assert plain.jobs.keys() == one.jobs.keys()
    assert _labels(plain) == _labels(one) == [("A", "A", 0, 0)]


def test_a_checkpoint_may_have_seeds_of_its_own_and_an_entry_may_name_one(bench):
    planned = bench.plan(
        pretrain_seeds=[0, 1],
        checkpoints=[CHECKPOINTS[0], CHECKPOINTS[1] | {"pretrain_seeds": [4]}],
        transfer=[{"recipe": "transfer.yaml", "checkpoints": ["A seed 1", "B"]}],
    )
    assert [label for label, *_ in _labels(planned)] == ["A seed 1", "B"]
    planned = bench.plan(
        pretrain_seeds=[0, 1], checkpoints=CHECKPOINTS,
        transfer=[{"recipe": "transfer.yaml", "checkpoints": ["B"]}],
    )  # fmt: skip
    assert [label for label, *_ in _labels(planned)] == ["B seed 0", "B seed 1"]


def test_an_exclusion_may_name_a_method(bench):
    planned = bench.plan(
        pretrain_seeds=[0, 1], checkpoints=CHECKPOINTS, transfer=[{"recipe": "transfer.yaml"}],
        exclude=[{"checkpoint": "A"}, {"checkpoint": "B seed 1"}],
    )  # fmt: skip
    assert [label for label, *_ in _labels(planned)] == ["B seed 0"]


def test_files_of_several_pretrainings_are_one_method(bench, tmp_path):
    for seed in (0, 1):
        (tmp_path / f"mine_{seed}.pth").write_bytes(bytes([seed]))
    planned = bench.plan(
        pretrain_seeds=[0, 1],
        checkpoints=[{"name": "mine", "path": str(tmp_path / "mine_{seed}.pth")}],
        transfer=[{"recipe": "transfer.yaml"}],
    )
    assert [x[:3] for x in _labels(planned)] == [
        ("mine seed 0", "mine", 0),
        ("mine seed 1", "mine", 1),
    ]
    assert len({job.inputs["checkpoint"].sha256 for job in planned.jobs.values()}) == 2


def test_seeds_of_a_single_file_are_refused(bench):
    with pytest.raises(
        RecipeError, match=r"'mine' is one file: with `pretrain_seeds`, write \{seed\}"
    ):
        bench.plan(
            checkpoints=[{"name": "mine", "path": "mine.pth", "pretrain_seeds": [0, 1]}],
            transfer=[{"recipe": "transfer.yaml"}],
        )
