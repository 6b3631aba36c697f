"""The resumable state and the curve of a job's folder."""

import json

import pytest
import torch

from lowbit.transfer.workspace import Workspace


def _epochs(workspace):
    return [json.loads(line)["epoch"] for line in workspace.curve_path.read_text().splitlines()]


def test_a_state_comes_back_and_the_curve_ends_where_it_does(tmp_path):
    work = Workspace(tmp_path, key={"a": 1})
    assert work.resume() is None
    for epoch in range(4):
        work.log_epoch(epoch, 10, lr=0.1, loss={"train": 1.0})
        if epoch == 1:
            work.save(2, loss=1.0, network={"w": torch.arange(3)})
    with work.curve_path.open("a") as file:
        file.write('{"epoch": 4, "l')  # killed while writing
    again = Workspace(tmp_path, key={"a": 1})
    state = again.resume()
    assert state["epoch"] == 2 and state["network"]["w"].equal(torch.arange(3))
    assert _epochs(again) == [0, 1]
    again.log_epoch(2, 10, lr=0.1, loss={"train": 0.5})
    assert _epochs(again) == [0, 1, 2]


def test_a_kill_while_saving_leaves_the_old_state(tmp_path, monkeypatch):
    work = Workspace(tmp_path, key={})
    work.save(1, value=1)

    def killed(state, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        work.save(2, value=2)
    monkeypatch.undo()
    assert Workspace(tmp_path, key={}).resume() == {"epoch": 1, "value": 1}


def test_the_state_of_another_job_is_refused_and_kept(tmp_path):
    Workspace(tmp_path, key={"lr": 1}).save(1, value=1)
    with pytest.raises(ValueError, match=r"another recipe or checkpoint.*delete"):
        Workspace(tmp_path, key={"lr": 2}).resume()
    assert Workspace(tmp_path, key={"lr": 1}).resume()["value"] == 1
