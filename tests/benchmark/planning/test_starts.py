"""What a job starts from: a file, and where to get it; or the network that another entry trains."""

import pytest

from lowbit.benchmark.planning.job import Output
from lowbit.benchmark.recipes.errors import RecipeError

FIRST = {"id": "first", "recipe": "transfer.yaml", "precisions": ["4w4a"]}
SECOND = {"recipe": "transfer.yaml", "start": "first", "overrides": {"lr": 2}}


def transfers(planned):
    return [job for job in planned.jobs.values() if job.stage == "transfer"]


def test_an_entry_starts_from_the_only_network_of_another(bench):
    first, second = transfers(bench.plan(transfer=[SECOND, FIRST]))
    assert second.inputs == {"checkpoint": Output(first.id, "network 4w4a")}
    assert second.needs == (first.id,) and second.label == first.label
    (plain,) = transfers(bench.plan(transfer=[{**SECOND, "start": None}]))
    assert second.id != plain.id


def test_it_is_of_the_same_seed_or_the_only_one(bench):
    both = [{**FIRST, "seeds": [0, 1]}, {**SECOND, "seeds": [0, 1]}]
    jobs = {(j.recipe["lr"], j.recipe["seed"]): j for j in transfers(bench.plan(transfer=both))}
    for seed in (0, 1):
        assert jobs[2.0, seed].needs == (jobs[1.0, seed].id,)
    one = transfers(bench.plan(transfer=[FIRST, {**SECOND, "seeds": [5, 6]}]))
    assert {job.needs for job in one[1:]} == {(one[0].id,)}


def test_several_networks_are_refused(bench):
    with pytest.raises(RecipeError, match=r"one network for each of FP, 4w4a.*one precision"):
        bench.plan(transfer=[{**FIRST, "precisions": ["FP", "4w4a"]}, SECOND])


def test_the_file_is_that_artifact_and_its_hash_is_watched(bench):
    planned = bench.plan(transfer=[FIRST, SECOND])
    first, second = transfers(planned)
    done = bench.run(planned).done
    assert done[second.id].status == "completed"
    assert done[second.id].inputs["checkpoint"].path.endswith(f"{first.id}/network.pth")
    assert (
        done[second.id].inputs["checkpoint"].sha256
        == done[first.id].artifact_sha256["network 4w4a"]
    )
    again = bench.run(planned)
    assert again.kept == set(planned.jobs)


def test_a_file_that_is_not_there_is_skipped_with_the_way_to_get_it(bench):
    file = {"name": "theirs", "path": "weights/theirs.pth", "url": "https://example.org/theirs.pth"}
    planned = bench.plan(checkpoints=[file])
    (job,) = planned.jobs.values()
    assert job.problem is None
    where = bench.folder.resolve() / "weights" / "theirs.pth"
    assert f"curl -L --create-dirs -o {where} https://example.org/theirs.pth" in job.missing
    assert bench.run(planned).done[job.id].status == "skipped"
    where.parent.mkdir()
    where.write_bytes(b"weights")
    planned = bench.plan(checkpoints=[file])
    (job,) = planned.jobs.values()
    assert bench.run(planned).done[job.id].status == "completed"


@pytest.mark.parametrize(
    ("checkpoint", "said"),
    [
        (
            {"pretrain": "pretrain.yaml", "url": "https://example.org"},
            "`url` says where to get a file",
        ),
        ({"path": "a.pth", "architectures": {"A": "a"}}, "it is of one architecture"),
        ({"pretrain": "pretrain.yaml", "architectures": {}}, "at least 1 item"),
    ],
)
def test_a_checkpoint_that_makes_no_sense_is_refused(bench, checkpoint, said):
    with pytest.raises(RecipeError, match=said):
        bench.plan(checkpoints=[{"name": "A", **checkpoint}])


def test_a_detectron2_configuration_is_a_recipe_as_it_is(tmp_path, monkeypatch):
    import yaml

    from lowbit.benchmark.planning.plan import plan

    monkeypatch.setenv("LOWBIT_DATA", str(tmp_path))
    (tmp_path / "my.pth").write_bytes(b"weights")
    (tmp_path / "base.yaml").write_text("MODEL: {META_ARCHITECTURE: RetinaNet}\n")
    (tmp_path / "theirs.yaml").write_text("_BASE_: base.yaml\nSOLVER: {MAX_ITER: 7}\n")
    suite = {
        "name": "theirs",
        "checkpoints": [{"name": "mine", "path": "my.pth"}],
        "detection": [{"recipe": "theirs.yaml", "overrides": {"opts": ["SOLVER.BASE_LR", 0.5]}}],
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    (job,) = plan(tmp_path / "suite.yaml").jobs.values()
    assert job.recipe["config"] == str(tmp_path / "theirs.yaml")
    assert job.recipe["opts"] == ["SOLVER.BASE_LR", 0.5]
