"""Figs. S6 and S7: the paper's example, worked by hand."""

import numpy as np
import pytest
import torch

from lowbit.quant import QuantizerSpec
from lowbit.transfer.analyses.quantizer_steps import (
    STEPS,
    draw_intervals,
    draw_steps,
    gaussian,
    quantize_steps,
    summary,
    table,
)

INTERVAL = QuantizerSpec("Interval")


def test_the_papers_example():
    """s = 0.3 at 2 bits: alpha, beta, gamma are -2, 1, 2 (Sec. S5)."""
    w = torch.tensor([-0.5, -0.2, -0.08, 0.0, 0.07, 0.08, 0.4])
    one = quantize_steps(w, INTERVAL, 2, 0.3)
    assert one.clipping_points == pytest.approx((-0.3, 0.15))
    assert one.transition_points == pytest.approx([-0.225, -0.075, 0.075])
    assert one.spacing == 0.5
    n = [-2, -4 / 3, -1.6 / 3, 0, 1.4 / 3, 1.6 / 3, 1]
    assert one.values["normalized"] == pytest.approx(n)
    assert one.values["discrete"].tolist() == [-2, -1, -1, 0, 0, 1, 1]
    assert one.values["quantized"].tolist() == [-1, -0.5, -0.5, 0, 0, 0.5, 0.5]


def test_a_smaller_scale_moves_a_weight_to_another_level():
    """The paper's example of Fig. S7: -0.2 is in the second level with s = 0.3, in the first with 0.2."""
    w = torch.tensor([-0.2, 0.3])
    codes = [quantize_steps(w, INTERVAL, 2, s).values["discrete"][0] for s in (0.3, 0.2)]
    assert codes == [-1, -2]


def test_learned_steps_are_drawn_with_their_own_grid():
    one = quantize_steps(torch.tensor([-0.9, 0.26, 0.24]), QuantizerSpec("LSQ"), 3, 0.5)
    assert one.values["discrete"].tolist() == [-2, 1, 0]
    assert one.values["quantized"].tolist() == [-1.0, 0.5, 0.0]
    assert one.spacing == 0.5 and one.transition_points[0] == pytest.approx(-1.75)


def test_without_a_scale_it_is_the_one_training_starts_with():
    w = gaussian(0.1, 50_000)
    assert quantize_steps(w, INTERVAL, 2, None).scale == pytest.approx(3 * w.std().item(), rel=1e-3)


def test_the_tables_count_every_weight_once_a_step():
    w = gaussian(0.1, 4_000)
    drawn = [quantize_steps(w, INTERVAL, 2, s) for s in (0.3, 0.2)]
    frame = table(drawn)
    assert set(frame.step) == set(STEPS)
    assert (frame.groupby(["scale", "step"])["count"].sum() == 4_000).all()
    rows = summary(drawn)
    for row, one in zip(rows, drawn, strict=True):
        codes = one.values["discrete"]
        assert sum(row["share_of_codes"].values()) == pytest.approx(1)
        assert row["share_of_codes"]["-1"] == np.mean(codes == -1)
        low, high = one.clipping_points
        assert row["clipped"] == pytest.approx(((w < low) | (w > high)).double().mean().item())


def test_pictures_have_the_points():
    drawn = [quantize_steps(gaussian(0.1, 2_000), INTERVAL, 2, s) for s in (0.3, 0.2)]
    latent = draw_steps(drawn[0]).axes[0]
    lines = sorted(line.get_xdata()[0] for line in latent.lines)
    assert lines == pytest.approx([-0.3, -0.225, -0.075, 0.075, 0.15])
    assert [axes.get_title() for axes in draw_intervals(drawn).axes] == ["s = 0.3", "s = 0.2"]


@pytest.mark.parametrize(
    ("kind", "bits", "told"),
    [("MinMax", 2, "has no scale to draw; nothing"), ("LSQ", 8, "256 levels cannot be told apart")],
)
def test_what_cannot_be_drawn_is_refused(kind, bits, told):
    with pytest.raises(ValueError, match=told):
        quantize_steps(gaussian(0.1, 100), QuantizerSpec(kind), bits, None)
