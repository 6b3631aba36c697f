"""Running a graph: parts of a batch, values that are written over, work that graphs share."""

import pytest
import torch
from torch import fx, nn

from lowbit.quant.integer import graph_run
from lowbit.quant.integer.graph_run import GraphRun, in_several


class Count(nn.Module):
    """Return x + amount and count the calls."""

    def __init__(self, amount):
        super().__init__()
        self.amount, self.calls = amount, 0

    def forward(self, x):
        self.calls += 1
        return x + self.amount


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = Count(1.0), Count(2.0), Count(4.0)
        self.act = nn.ReLU(inplace=True)
        self.weight = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        x = self.stem(x)
        return (self.act(self.left(x)) * self.weight).flatten(1)


def graphs(net):
    """Two graphs with one stem; the second writes over what the stem returns."""
    first = fx.Tracer().trace(net)
    second = fx.Graph()
    x = second.placeholder("x")
    y = second.call_method("mul_", (second.call_module("stem", (x,)), 10.0))
    second.output(second.call_method("flatten", (second.call_module("right", (y,)), 1)))
    numbers = {}
    return [GraphRun(net, graph, numbers) for graph in (first, second)]


@pytest.fixture
def net(monkeypatch):
    monkeypatch.setattr(fx.Tracer, "is_leaf_module", lambda self, module, name: True)
    return Net()


def test_what_graphs_share_is_computed_once_and_kept_from_being_overwritten(net):
    runs = graphs(net)
    shared = in_several(runs)
    assert len(shared) == 2  # the image and the stem
    x = torch.randn(6, 3, 4, 4)
    for order in ((0, 1), (1, 0), (1, 1), (0, 0)):
        known, before = {}, net.stem.calls
        for n in order:
            found = runs[n](x, shared, known)
            expected = ((x + 3).relu() * 3) if n == 0 else (x + 1) * 10 + 4
            assert torch.allclose(found, expected.flatten(1), atol=1e-5)
        assert net.stem.calls == before + 1


def test_a_batch_runs_in_parts_that_are_put_together(net, monkeypatch):
    monkeypatch.setattr(graph_run, "_PIXELS", 4 * 16)  # four images of 4 x 4 pixels
    runs = graphs(net)
    x = torch.randn(10, 3, 4, 4)
    known = {}
    found = [run(x, in_several(runs), known) for run in runs]
    assert net.stem.calls == 3
    assert torch.allclose(found[0], ((x + 3).relu() * 3).flatten(1), atol=1e-5)
    assert torch.allclose(found[1], ((x + 1) * 10 + 4).flatten(1), atol=1e-5)


def test_values_that_nothing_reads_any_more_are_released(net):
    alive = []

    class Watch(Count):
        def forward(self, x):
            alive.append([ref() is not None for ref in refs])
            y = super().forward(x)
            refs.append(__import__("weakref").ref(y))
            return y

    refs = []
    chain = nn.Sequential(*(Watch(1.0) for _ in range(3)), nn.Flatten())
    GraphRun(chain, fx.symbolic_trace(chain).graph, {})(torch.zeros(1, 2, 3, 3), set(), {})
    assert alive == [[], [True], [False, True]]


def test_modules_of_other_bits_are_other_work():
    from lowbit.quant import quantize, set_precision
    from lowbit.quant.structure.dataflow import StepTracer

    net = quantize(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)), "dorefa")
    numbers, runs = {}, []
    for precision in ("8w8a", "4w4a", "8w8a"):
        set_precision(net, precision)
        runs.append(GraphRun(net, StepTracer().trace(net), numbers))
    assert in_several(runs[:2]) < in_several([runs[0], runs[2]])
    assert len(in_several(runs[:2])) == 2  # the image and the first layer, which is not quantized


def test_modules_that_follow_the_precision_by_themselves_are_not_shared():
    from lowbit.quant.layers import Switchable
    from lowbit.quant.structure.dataflow import StepTracer

    class Follows(Count, Switchable):
        pass

    net, numbers = nn.Sequential(Count(1.0), Follows(1.0)), {}
    runs = [GraphRun(net, StepTracer().trace(net), numbers) for _ in range(2)]
    assert len(in_several(runs)) == 2  # the image and the first module


class Flat(nn.Module):
    """Views images as vectors, which it cannot in channels_last."""

    def forward(self, x):
        return x.view(len(x), -1)


@pytest.mark.parametrize("as_module", [True, False])
def test_code_that_needs_contiguous_images_gets_them(as_module, monkeypatch):
    monkeypatch.setattr(graph_run, "_PIXELS", 4 * 16)

    class Flattening(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.flat = Count(1.0), Flat()

        def forward(self, x):
            y = self.stem(x)
            y += 1  # not twice, though the view fails at first
            return self.flat(y) if as_module else y.view(-1, 48)

    monkeypatch.setattr(fx.Tracer, "is_leaf_module", lambda self, module, name: True)
    net, x = Flattening(), torch.randn(10, 3, 4, 4)
    found = GraphRun(net, fx.symbolic_trace(net).graph, {})(x, set(), {})
    assert found.equal((x + 1 + 1).flatten(1))
    assert net.stem.calls == 1 + 3  # the failure, and the three parts
