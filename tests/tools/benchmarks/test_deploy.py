"""What `bench deploy` counts beside times: convolutions in floating point, and images of another class."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("onnxscript")

from lowbit.export.runtime import ComputedLayer
from lowbit.tools.benchmarks import deploy

RUNTIME = SimpleNamespace(NAME="openvino")


class Graph:
    """Classes of images by their first value, and layers that are known."""

    def __init__(self, shift=0, integers=()):
        self.shift, self.integers = shift, integers

    def run(self, images):
        return [np.eye(10)[(images[:, 0, 0, 0].astype(int) + self.shift) % 10]]

    def layers(self):
        return [ComputedLayer((name,), True, "i8") for name in self.integers]


def test_images_whose_class_differs_from_full_precision_are_counted():
    images = torch.arange(20.0).reshape(20, 1, 1, 1)
    graphs = {"fp32": Graph(), "same": Graph(), "other": Graph(shift=1)}
    rows = list(deploy._changed(RUNTIME, graphs, images))
    assert [row.ratio for row in rows] == [0, 100]
    assert "same" in rows[0].case and rows[0].against == "fp32"


def test_convolutions_in_floating_point_are_counted_whatever_the_graph_holds():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 2))
    wanted = (*deploy.EXACT, *deploy.FULL)
    exported = SimpleNamespace(layers=["1", "2"])
    sessions = {f"{p} {b}": Graph(integers=("1", "2")) for p, b in wanted}
    rows = list(
        deploy._in_float(RUNTIME, sessions, dict.fromkeys(wanted, (network, exported)), network)
    )
    assert [row.ratio for row in rows] == [1] * len(wanted)
    assert rows[0].target == 1 and rows[0].against == "of 2"


def test_a_peer_that_is_missing_is_left_out_with_a_line(monkeypatch, tmp_path, capsys):
    def missing(*_):
        raise ImportError("No module named 'nncf'")

    monkeypatch.setattr(deploy, "by_nncf", missing)
    monkeypatch.setattr(deploy, "by_onnxruntime", lambda source, images: source)
    subject = deploy.Subject(nn.Identity(), torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4))
    found = dict(deploy.peer_models(b"", subject, tmp_path))
    assert list(found) == [("onnxruntime", "quantize_static int8")]
    assert "NNCF int8 is left out: No module named 'nncf'" in capsys.readouterr().out
