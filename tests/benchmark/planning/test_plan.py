"""From a suite file to its jobs."""

import os
from collections import Counter

import pytest
import yaml

from lowbit.benchmark.planning.deployed_jobs import deployed_inputs, described
from lowbit.benchmark.planning.job import (
    CALIBRATED,
    CHECKPOINT,
    NETWORKS,
    File,
    Job,
    Label,
    Output,
)
from lowbit.benchmark.planning.plan import plan
from lowbit.benchmark.planning.suite import load_suite
from lowbit.benchmark.recipes.errors import RecipeError
from lowbit.benchmark.recipes.yaml_files import validate
from lowbit.benchmark.results.frame import load_frame

TWO = [
    {"name": "A", "pretrain": "pretrain.yaml"},
    {"name": "B", "pretrain": "pretrain.yaml", "overrides": {"lr": 2}},
]


def jobs_of(planned, stage):
    return [job for job in planned.jobs.values() if job.stage == stage]


def test_every_recipe_meets_every_checkpoint_with_every_seed(bench):
    planned = bench.plan(
        seeds=[0, 1],
        precisions=["FP", "4w4a"],
        checkpoints=TWO,
        transfer=[
            {"recipe": "transfer.yaml"},
            {
                "recipe": "transfer.yaml",
                "overrides": {"lr": 3},
                "seeds": [7],
                "precisions": ["2w2a"],
            },
        ],
    )
    assert Counter(job.stage for job in planned.jobs.values()) == {"pretrain": 2, "transfer": 6}
    cells = Counter(
        (job.label.checkpoint, job.recipe["lr"], job.recipe["seed"], job.precisions)
        for job in jobs_of(planned, "transfer")
    )
    expected = [
        cell
        for name in "AB"
        for cell in (
            *((name, 1.0, seed, ("FP", "4w4a")) for seed in (0, 1)),
            (name, 3.0, 7, ("2w2a",)),
        )
    ]
    assert cells == Counter(expected)


def test_jobs_come_after_the_jobs_they_need(bench):
    planned = bench.plan(
        checkpoints=TWO,
        detection=[
            {"id": "lsq", "recipe": "detection.yaml", "detector": "fp", "overrides": {"lr": 2}},
            {"id": "fp", "recipe": "detection.yaml"},
        ],
    )
    seen = set()
    for job in planned.jobs.values():
        assert set(job.needs) <= seen
        seen.add(job.id)
    for job in jobs_of(planned, "detection")[2:]:
        backbone, detector = (planned.jobs[i.job_id] for i in job.inputs.values())
        assert (backbone.stage, detector.stage) == ("pretrain", "detection")
        assert backbone.label.checkpoint == detector.label.checkpoint == job.label.checkpoint


def test_a_detector_is_of_the_same_seed_or_the_only_one(bench):
    fp = {"id": "fp", "recipe": "detection.yaml", "seeds": [0, 1]}
    lsq = {"recipe": "detection.yaml", "detector": "fp", "overrides": {"lr": 2}, "seeds": [0, 1]}
    planned = bench.plan(detection=[fp, lsq])
    for job in jobs_of(planned, "detection"):
        if "detector" in job.inputs:
            detector = planned.jobs[job.inputs["detector"].job_id]
            assert detector.recipe["seed"] == job.recipe["seed"]
    planned = bench.plan(detection=[{**fp, "seeds": [4]}, lsq])
    used = {j.inputs["detector"] for j in planned.jobs.values() if "detector" in j.inputs}
    assert len(used) == 1
    with pytest.raises(RecipeError, match="with seed 2, but that entry trains seeds 0, 1; nothing"):
        bench.plan(detection=[fp, {**lsq, "seeds": [2]}])


def test_equal_jobs_appear_once(bench):
    once = bench.plan()
    twice = bench.plan(transfer=[{"recipe": "transfer.yaml"}, {"recipe": "./transfer.yaml"}])
    assert list(once.jobs) == list(twice.jobs)


def test_the_same_checkpoint_under_two_names_is_scored_once_and_said(bench, caplog):
    planned = bench.plan(checkpoints=[TWO[0], {**TWO[0], "name": "again"}])
    assert len(planned.jobs) == 2
    assert "A and again are the same; they are scored once, as A" in caplog.text


def test_files_are_relative_to_the_suite_and_hashed(bench, monkeypatch, tmp_path):
    (bench.folder / "backbone.pth").write_text("weights")
    monkeypatch.chdir("/")
    planned = bench.plan(
        checkpoints=[{"name": "mine", "path": "backbone.pth", "architecture": "resnet18"}]
    )
    (job,) = planned.jobs.values()
    assert job.inputs == {"checkpoint": File.at(bench.folder / "backbone.pth")}
    assert job.recipe["architecture"] == job.label.architecture == "resnet18"


def test_a_missing_checkpoint_file_does_not_stop_planning(bench):
    planned = bench.plan(checkpoints=[{"name": "gone", "path": "gone.pth"}, TWO[0]])
    problems = {job.label.checkpoint: job.problem for job in planned.jobs.values()}
    assert "gone.pth" in problems["gone"]
    assert problems["A"] is None


def test_the_label_of_a_made_checkpoint_is_known_before_it_is_made(bench):
    job = jobs_of(bench.plan(checkpoints=[TWO[0]]), "transfer")[0]
    assert (job.label.checkpoint, job.label.method) == ("A", "Fake")


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shards_own_each_job_once_and_bring_what_they_need(bench, count):
    whole = bench.plan(
        checkpoints=TWO,
        seeds=[0, 1, 2],
        detection=[
            {"id": "fp", "recipe": "detection.yaml"},
            {"recipe": "detection.yaml", "detector": "fp", "overrides": {"lr": 2}},
        ],
    )
    shards = [whole.select(shard=(i, count)) for i in range(count)]
    assert set().union(*(shard.jobs for shard in shards)) == set(whole.jobs)
    for shard in shards:
        assert all(need in shard.jobs for job in shard.jobs.values() for need in job.needs)
    terminal = set(whole.jobs) - whole.needed
    owned = Counter(job_id for shard in shards for job_id in shard.jobs if job_id in terminal)
    assert owned == Counter(terminal)


def test_only_keeps_the_stages_named(bench):
    planned = bench.plan(detection=[{"recipe": "detection.yaml"}])
    kept = planned.select(only=("pretrain", "detection"))
    assert [job.stage for job in kept.jobs.values()] == ["pretrain", "detection"]


def test_a_checkpoint_of_the_command_line_joins_the_suites(bench, monkeypatch):
    (bench.folder / "backbone.pth").write_text("weights")
    monkeypatch.chdir(bench.folder)
    path = bench.suite()
    planned = plan(path, ["checkpoint=backbone.pth", "name=my-ssl", "seeds", "[0, 1]"])
    names = Counter(job.label.checkpoint for job in planned.jobs.values())
    assert names == {"made": 3, "my-ssl": 2}
    assert planned.name == "fakes"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("checkpoint=a.pth", ["a"]),
        ("name=x checkpoint=a.pth", ["x"]),
        ("checkpoint a.pth name x checkpoint b.pth name y", ["x", "y"]),
        ("checkpoint=a.pth checkpoint=b.pth architecture=resnet18", ["a", "b"]),
    ],
)
def test_words_after_a_checkpoint_are_about_it(bench, monkeypatch, words, names):
    monkeypatch.chdir(bench.folder)
    suite = load_suite(bench.suite(), words.split())
    assert [c.name for c in suite.checkpoints] == ["made", *names]
    assert suite.checkpoints[1].path == os.path.join(bench.folder, "a.pth")
    assert suite.name == "fakes"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"seed": [0]}, "seed: unknown key. Did you mean 'seeds'"),
        ({"seeds": []}, "seeds: Tuple should have at least 1 item"),
        ({"checkpoints": [{"name": "A"}]}, "checkpoints.0: checkpoint 'A' needs either `pretrain`"),
        ({"checkpoints": [*TWO, TWO[0]]}, "the checkpoint 'A' is given twice"),
        ({"checkpoints": []}, "checkpoints: Tuple should have at least 1 item"),
        (
            {"checkpoints": [{"name": "A", "pretain": "pretrain.yaml"}]},
            "checkpoints.0.pretain: unknown key. Did you mean 'pretrain'",
        ),
        (
            {"transfer": [{"recipe": "transfer.yaml", "checkpoints": ["mad"]}]},
            "there is no checkpoint 'mad'. Did you mean 'made'",
        ),
        (
            {"detection": [{"recipe": "detection.yaml", "detector": "fb"}]},
            "there is no detection id 'fb'",
        ),
        (
            {"detection": [{"id": "fp", "recipe": "detection.yaml", "detector": "fp"}]},
            "the detection id 'fp' starts from itself",
        ),
        (
            {
                "transfer": [{"id": "linear", "recipe": "transfer.yaml"}],
                "deploy": [{"recipe": "deploy.yaml", "transfer": "lin"}],
            },
            "there is no transfer id 'lin'",
        ),
        (
            {
                "transfer": [{"id": "fp", "recipe": "transfer.yaml"}],
                "deploy": [{"recipe": "deploy.yaml", "detection": "fp"}],
            },
            "there is no detection id 'fp'",
        ),
        (
            {"deploy": [{"recipe": "deploy.yaml"}]},
            "the deploy entry of deploy.yaml needs either `transfer` or `detection`",
        ),
        ({"transfer": [{}]}, "transfer.0.recipe: required, but not given"),
        ({"reported": [{"paper": "SSQLL"}]}, "reported: "),
    ],
)
def test_a_wrong_suite_says_where_and_how_to_mend_it(bench, keys, said):
    with pytest.raises(RecipeError) as error:
        bench.plan(**keys)
    assert said in str(error.value)
    assert "suite.yaml (a suite)" in str(error.value)


def test_a_wrong_recipe_is_named_by_its_file(bench):
    with pytest.raises(RecipeError, match=r"transfer\.yaml \(a transfer recipe\)") as error:
        bench.plan(transfer=[{"recipe": "transfer.yaml", "overrides": {"sede": 1}}])
    assert "sede: unknown key. Did you mean 'seed'" in str(error.value)


def test_outputs_are_inputs_by_the_job_that_makes_them(bench):
    pretrain, transfer = bench.plan().jobs.values()
    assert transfer.inputs == {"checkpoint": Output(pretrain.id)}
    assert transfer.needs == (pretrain.id,)


LINEAR = {"id": "linear", "recipe": "transfer.yaml", "precisions": ["FP", "8w8a", "4w4a"]}


def test_a_deploy_entry_reads_the_networks_of_a_transfer_entry(bench):
    few = {"recipe": "deploy.yaml", "transfer": "linear", "precisions": ["8w8a"], "seeds": [1]}
    planned = bench.plan(
        seeds=[0, 1],
        checkpoints=TWO,
        transfer=[{**LINEAR, "checkpoints": ["B"]}],
        deploy=[{"recipe": "deploy.yaml", "transfer": "linear", "overrides": {"lr": 2}}, few],
    )
    found = jobs_of(planned, "deploy")
    assert [(j.label.checkpoint, j.recipe["seed"], len(j.precisions)) for j in found] == [
        ("B", 0, 3),
        ("B", 1, 3),
        ("B", 1, 1),
    ]
    for job in found:
        made_by = planned.jobs[job.inputs["networks"].job_id]
        assert job.inputs["networks"] == Output(made_by.id, NETWORKS)
        assert job.inputs["checkpoint"] == made_by.inputs["checkpoint"]
        assert made_by.recipe["seed"] == job.recipe["seed"]
        assert job.recipe["image_size"] == made_by.facts["image_size"]
    schedule = bench.run(planned)
    assert {result.status for result in schedule.done.values()} == {"completed"}


def test_precisions_that_were_not_scored_are_refused_before_anything_runs(bench):
    entry = {"recipe": "deploy.yaml", "transfer": "linear", "precisions": ["2w2a"]}
    with pytest.raises(
        RecipeError, match=r"at 2w2a, but that entry scores FP, 8w8a, 4w4a; nothing"
    ):
        bench.plan(transfer=[LINEAR], deploy=[entry])


def test_networks_that_a_job_did_not_leave_fail_the_deploy_job_alone(bench):
    linear = {**LINEAR, "overrides": {"behave": "without networks"}}
    planned = bench.plan(
        transfer=[linear], deploy=[{"recipe": "deploy.yaml", "transfer": "linear"}]
    )
    schedule = bench.run(planned)
    (job,) = jobs_of(planned, "deploy")
    result = schedule.done[job.id]
    assert result.status == "failed" and "has left no scored networks" in result.reason


def test_a_deploy_entry_reads_the_detector_of_a_detection_entry(bench):
    lsq = {"id": "linear", "recipe": "detection.yaml", "overrides": {"precisions": ["4w4a"]}}
    planned = bench.plan(
        seeds=[0, 1],
        checkpoints=TWO,
        transfer=[LINEAR],
        detection=[{**lsq, "checkpoints": ["B"]}],  # of the same id as the transfer entry
        deploy=[{"recipe": "deploy.yaml", "detection": "linear"}],
    )
    found = jobs_of(planned, "deploy")
    assert [(j.label.checkpoint, j.recipe["seed"], j.precisions) for j in found] == [
        ("B", 0, ("4w4a",)),
        ("B", 1, ("4w4a",)),
    ]
    for job in found:
        made_by = planned.jobs[job.inputs["detector"].job_id]
        assert made_by.stage == "detection" and made_by.recipe["seed"] == job.recipe["seed"]
        assert job.inputs == {
            "checkpoint": made_by.inputs["checkpoint"],
            "detector": Output(made_by.id),
        }
        described = job.recipe["detection"]
        assert described["precisions"] == ["4w4a"] and described["engine"] == "torch"
        assert not {"checkpoint", "detector", "device", "name"} & described.keys()
    schedule = bench.run(planned)
    assert {result.status for result in schedule.done.values()} == {"completed"}


def test_a_detector_of_random_weights_is_deployed_without_a_checkpoint(bench):
    random = {"random_backbone": True, "architecture": "tiny"}
    fp = {"id": "fp", "recipe": "detection.yaml", "overrides": random}
    suite = {
        "name": "random",
        "detection": [fp],
        "deploy": [{"recipe": "deploy.yaml", "detection": "fp"}],
    }
    path = bench.folder / "random.yaml"
    path.write_text(yaml.safe_dump(suite))
    (job,) = jobs_of(plan(path), "deploy")
    assert set(job.inputs) == {"detector"} and job.label.checkpoint == "random tiny"


def test_the_detector_of_a_method_is_the_file_that_its_jobs_leave():
    detector = {"detector": File.at("detector.pth")}
    label = Label("A", architecture="resnet18")
    for method, fields, artifact in (
        ("lsq", {"precision": "4w4a"}, CHECKPOINT),
        ("ptq", {"precisions": ["FP", "8w8a"]}, CALIBRATED),
    ):
        recipe = validate("detection", {"method": method, "detector": "detector.pth", **fields})
        job = Job.plan("detection", recipe, inputs=detector, label=label)
        assert deployed_inputs(job) == {"detector": Output(job.id, artifact)}
        mapping = {**described(job), "detector": "detector.pth", "precisions": [job.precisions[-1]]}
        planned = Job.plan(
            "deploy", validate("deploy", mapping), inputs=deployed_inputs(job), label=label
        )
        assert planned.problem is None or "not installed" in planned.problem
        facts = ("dataset", "image_size", "seed", "policy_fingerprint", "split_sha256")
        assert [planned.facts[name] for name in facts] == [job.facts[name] for name in facts]


def test_detectors_of_detectron2_configurations_are_refused_before_anything_runs():
    made_by = Job(
        stage="detection",
        version=2,
        recipe={"config": "retinanet.yaml", "seed": 0},
        cosmetic=frozenset({"config"}),
        inputs={},
        identity={"method": "fp"},
        label=Label("A"),
    )
    with pytest.raises(RecipeError, match=r"by a Detectron2 configuration; nothing was run\. Only"):
        deployed_inputs(made_by)


def test_artifacts_have_the_names_that_their_jobs_give_them():
    from lowbit.detection import trained_detector
    from lowbit.transfer.scoring.scored_network import ROLE

    assert trained_detector.CALIBRATED == CALIBRATED and ROLE == NETWORKS


def test_random_weights_need_no_checkpoint(bench):
    random = {"random_backbone": True, "architecture": "tiny"}
    fp = {"id": "fp", "recipe": "detection.yaml", "overrides": random}
    lsq = {"recipe": "detection.yaml", "detector": "fp", "overrides": {"lr": 2}}
    suite = {"name": "random", "seeds": [0, 1], "detection": [lsq, fp]}
    path = bench.folder / "random.yaml"
    path.write_text(yaml.safe_dump(suite))
    planned = plan(path)
    assert [set(job.inputs) for job in planned.jobs.values()] == [set(), set(), *[{"detector"}] * 2]
    assert {job.recipe["checkpoint"] for job in planned.jobs.values()} == {None}
    bench.run(planned)
    frame = load_frame(bench.runs)  # seeds of one network, not four networks
    assert set(frame["checkpoint"].str.partition(" [")[0]) == {"random tiny"} and len(frame) == 4

    path.write_text(yaml.safe_dump({**suite, "transfer": [{"recipe": "transfer.yaml"}]}))
    with pytest.raises(RecipeError, match=r"transfer.yaml has no checkpoint to score; nothing was"):
        plan(path)
    suite["checkpoints"] = [TWO[0]]
    suite["detection"] = [{**fp, "checkpoints": ["A"]}]
    path.write_text(yaml.safe_dump(suite))
    with pytest.raises(RecipeError, match=r"starts from random weights, and its entry names"):
        plan(path)
