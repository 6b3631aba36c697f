"""Resumable states: the newest few, whole or not there, one job's, and a fallback when bytes rot."""

import json

import pytest
import torch

from lowbit.training.job_state import Workspace, claim


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def _save(folder, number, keep=3):
    weight = torch.full((1000,), number)
    Workspace(folder, key={}, keep=keep).save(number=number, weight=weight)


def test_a_state_comes_back_and_there_may_be_none(tmp_path):
    work = Workspace(tmp_path, key={"a": 1})
    assert work.resume() is None
    work.save(epoch=2, network={"w": torch.arange(3)})
    state = Workspace(tmp_path, key={"a": 1}).resume()
    assert state["epoch"] == 2 and state["network"]["w"].equal(torch.arange(3))
    assert state.keys() == {"epoch", "network"}


def test_the_newest_few_are_kept_in_order(tmp_path):
    for number in range(5):
        _save(tmp_path, number)
    assert _names(tmp_path) == ["last.1.pth", "last.2.pth", "last.pth"]
    work = Workspace(tmp_path, key={})
    assert [torch.load(work.path_of(age))["number"] for age in range(3)] == [4, 3, 2]
    _save(tmp_path, 5, keep=1)
    assert _names(tmp_path) == ["last.pth"]


def test_states_of_another_name_stand_beside(tmp_path):
    Workspace(tmp_path, key={}, file="training.pth", keep=2).save(number=1)
    Workspace(tmp_path, key={}, file="training.pth", keep=2).save(number=2)
    _save(tmp_path, 3, keep=1)
    assert _names(tmp_path) == ["last.pth", "training.1.pth", "training.pth"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_damage_is_passed_over(tmp_path, damage, caplog):
    for number in (1, 2):
        _save(tmp_path, number)
    path = tmp_path / "last.pth"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1  # one bit of a weight
    content = {"cut": content[:-100], "flipped": content, "empty": b"", "text": b"hello"}[damage]
    path.write_bytes(content)
    with caplog.at_level("INFO"):
        assert Workspace(tmp_path, key={}).resume()["number"] == 1
    assert "last.pth is damaged" in caplog.text
    assert f"resumed from {tmp_path / 'last.1.pth'}" in caplog.text


def test_a_kill_while_saving_leaves_the_old_state(tmp_path, monkeypatch):
    _save(tmp_path, 1)

    def killed(state, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        _save(tmp_path, 2)
    assert Workspace(tmp_path, key={}).resume()["number"] == 1


def test_a_crash_between_the_renames_leaves_the_newest_of_before(tmp_path, monkeypatch):
    _save(tmp_path, 1)
    monkeypatch.setattr(
        "lowbit.common.atomic_file.os.replace",
        lambda *args: (_ for _ in ()).throw(KeyboardInterrupt),
    )
    with pytest.raises(KeyboardInterrupt):
        _save(tmp_path, 2)
    assert Workspace(tmp_path, key={}).resume()["number"] == 1


def test_all_damaged_is_an_error_that_names_them(tmp_path):
    work = Workspace(tmp_path, key={}, keep=2)
    for age in range(2):
        work.path_of(age).write_bytes(b"no")
    with pytest.raises(ValueError, match=r"last.pth, .*last.1.pth: none can be read; nothing was"):
        work.resume()


def test_the_state_of_another_job_is_refused_and_kept(tmp_path):
    job = {"recipe": {"lr": 1, "adaptive": {"bits": (8, 2)}}, "checkpoint": "abc"}
    Workspace(tmp_path, key=job).save(value=1)
    other = {"recipe": {"lr": 2, "adaptive": {"bits": (8, 4)}}, "checkpoint": "abc"}
    told = r"differs in adaptive.bits, lr; nothing was trained and nothing was overwritten.*delete"
    with pytest.raises(ValueError, match=told):
        Workspace(tmp_path, key=other).resume()
    with pytest.raises(ValueError, match="differs in checkpoint; nothing was trained"):
        Workspace(tmp_path, key={**job, "checkpoint": "def"}).resume()
    assert Workspace(tmp_path, key=job).resume() == {"value": 1}


def test_a_part_has_a_folder_and_a_key_of_its_own(tmp_path):
    job = Workspace(tmp_path, key={"a": 1})
    job.part("4w4a").save(value=1)
    assert (tmp_path / "parts/4w4a/last.pth").is_file() and job.resume() is None
    assert job.part("4w4a").resume() == {"value": 1}
    (tmp_path / "parts/4w4a").rename(tmp_path / "parts/2w2a")
    with pytest.raises(ValueError, match="differs in part"):
        job.part("2w2a").resume()


def test_a_claimed_folder_is_one_job_s(tmp_path):
    job = {"version": 1, "recipe": {"lr": 1.0}, "start": "abc"}
    claim(tmp_path, job)
    claim(tmp_path, job)
    assert json.loads((tmp_path / "job.json").read_text()) == job
    with pytest.raises(ValueError, match=r"belongs to another job, which differs in lr; nothing"):
        claim(tmp_path, {**job, "recipe": {"lr": 2.0}})
    with pytest.raises(ValueError, match=r"differs in start; nothing was trained"):
        claim(tmp_path, {**job, "start": "def"})
