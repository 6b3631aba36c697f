"""What jobs recorded is read back as it was written, and drawn."""

import pytest
import torch

from lowbit.benchmark.cli import analyze
from lowbit.detection.analyses.training_curves import draw, read
from lowbit.training.metrics_log import IterationLog, record_scores


class Scheduled(torch.optim.SGD):
    """An optimizer with the rates of two layers, which move as it is told."""

    def rates(self):
        return {
            "target": self.step_number / 100,
            "names": ["layer1", "layer2"],
            "running": [0.25, 0.5],
            "lr": [0.01 * self.step_number, 0.03],
        }


@pytest.fixture
def jobs(tmp_path):
    """Folders of a job under a schedule and of one without."""
    weights = [torch.nn.Parameter(torch.zeros(1))]
    for name, kind in (("sgdt", Scheduled), ("lsq", torch.optim.SGD)):
        folder = tmp_path / name
        folder.mkdir()
        optimizer = kind(weights, lr=0.5)
        recorder = IterationLog(folder, start=0, total=4, every=2)
        for iteration in (1, 3):
            optimizer.step_number = iteration
            losses = {"total_loss": 1.5 / iteration, "loss_cls": 1.0 / iteration}
            recorder.write(iteration, losses, optimizer)
        record_scores(folder, 2, {"AP": 1.0, "AP50": 2.0})
        record_scores(folder, 4, {"AP": 3.0, "AP50": 4.0})
        record_scores(folder, 4, {"AP": 5.0, "AP50": 6.0})  # as a resumed run scores again
    return [tmp_path / "sgdt", tmp_path / "lsq"]


def test_curves_are_read_as_they_were_written(jobs):
    frames = read(jobs)
    curves, scores, moved = (frames[n] for n in ("curves", "scores", "transitions"))
    assert curves[curves.job == "lsq"].total_loss.tolist() == [1.5, 0.5]
    assert curves.iteration.tolist() == [2, 4, 2, 4]
    assert scores[scores.job == "sgdt"][["iteration", "AP"]].values.tolist() == [[2, 1], [4, 5]]
    assert set(moved.job) == {"sgdt"}
    assert moved[moved.layer == "layer1"].lr.tolist() == [0.01, 0.03]
    assert moved[moved.layer == "layer2"].running.tolist() == [0.5, 0.5]
    assert moved.target.unique().tolist() == [0.01, 0.03]


def test_pictures_show_what_was_read(jobs):
    loss, ap, rate, lr = draw(read(jobs)).axes
    assert [line.get_ydata().tolist() for line in ap.lines] == [[1, 5], [1, 5]]
    assert len(loss.lines) == 2
    assert len(rate.lines) == 4  # two layers, their mean, the target
    assert [line.get_ydata().tolist() for line in lr.lines][2] == pytest.approx([0.02, 0.03])


def test_the_command_writes_picture_and_numbers(jobs, tmp_path, capsys):
    out = tmp_path / "out"
    assert analyze.main(["detection", *map(str, jobs), "--output-dir", str(out)]) == 0
    assert {"detection.png", "curves.csv", "scores.csv", "transitions.csv"} == {
        file.name for file in out.iterdir()
    }
    assert "5.00" in capsys.readouterr().out
    assert analyze.main(["detection", str(tmp_path)]) == 1
    assert "nothing was drawn" in capsys.readouterr().err
