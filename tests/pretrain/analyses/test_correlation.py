"""The two errors of SSQL: against plain loops, the theory's identity, and an unwatched training."""

import json
import math

import pytest
import torch

from lowbit.pretrain import Recipe, run
from lowbit.pretrain.analyses.correlation import (
    ErrorCorrelation,
    correlate,
    draw,
    error_terms,
    summary,
)
from lowbit.pretrain.frameworks import Framework
from tests.small_digits import NAME as SMALL_DIGITS

SMALL = {
    "architecture": "resnet10_slim",
    "dataset": SMALL_DIGITS,
    "image_size": 8,
    "batch_size": 64,
    "dim": 16,
    "hidden_dim": 8,
    "pairing": "ssql",
    "epochs": 2,
    "device": "cpu",
}


def _reference_terms(p1_q, p1, z2):
    """One image after the other, in Python's own numbers."""
    rows = []
    for vectors in zip(p1_q.tolist(), p1.tolist(), z2.tolist(), strict=True):
        a, b, c = ([x / math.hypot(*v) for x in v] for v in vectors)
        e_q = [x - y for x, y in zip(a, b, strict=True)]
        e_c = [x - y for x, y in zip(b, c, strict=True)]
        dot = sum(x * y for x, y in zip(e_q, e_c, strict=True))
        lengths = math.hypot(*e_q), math.hypot(*e_c)
        rho = dot / math.prod(lengths) if all(lengths) else 0.0
        rows.append((rho, *(length**2 for length in lengths), 2 * dot))
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def test_error_terms_are_the_means_over_images():
    p1_q, p1, z2 = torch.randn(3, 7, 5) * 3
    torch.testing.assert_close(
        error_terms(p1_q, p1, z2), torch.tensor(_reference_terms(p1_q, p1, z2))
    )


def test_the_terms_add_up_to_what_the_quantized_branch_is_off():
    """|p1_q - z2|^2 = |e_q|^2 + |e_c|^2 + 2 <e_q, e_c>, and SSQL's D = |p1_q - z2|^2 / 2 - 1."""
    p1_q, p1, z2 = torch.randn(3, 9, 6)
    _, *parts = error_terms(p1_q, p1, z2)
    distance = -torch.nn.functional.cosine_similarity(p1_q, z2).mean()
    torch.testing.assert_close(sum(parts) / 2 - 1, distance)


def test_without_quantization_there_is_no_error_to_correlate():
    p, z = torch.randn(2, 4, 3)
    rho, quantization, contrastive, cross = error_terms(p, p, z)
    assert rho == quantization == cross == 0 and contrastive > 0


@pytest.mark.parametrize(
    "fields",
    [{}, {"framework": "moco_v2", "accumulate": 2}],
    ids=["simsiam", "moco_v2"],
)
def test_watching_leaves_the_training_as_it_is_to_the_bit(fields, tmp_path):
    recipe = Recipe(**{**SMALL, **fields})
    folders = [tmp_path / "plain", tmp_path / "watched"]
    for folder in folders:
        folder.mkdir()
    expected = run(recipe, folders[0])
    frame, _ = correlate(recipe, folders[1])
    plain, watched = ((f / "checkpoint.pth").read_bytes() for f in folders)
    assert plain == watched
    losses = [
        [json.loads(line)["loss"] for line in (f / "metrics.jsonl").read_text().splitlines()]
        for f in folders
    ]
    assert losses[0] == losses[1]
    assert expected["details"]["steps"] == len(frame) == 8
    assert frame.step.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert frame.epoch.tolist() == [1, 1, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize("framework", ["simsiam", "byol"])
def test_a_step_is_read_as_the_paper_means_it(framework, tmp_path, monkeypatch):
    """The terms of one step, from the embeddings that the framework made in it."""
    embed, seen = Framework.embed, []

    def recording(self, view, precision, group):
        seen.append(embed(self, view, precision, group))
        return seen[-1]

    monkeypatch.setattr(Framework, "embed", recording)
    recipe = Recipe(**{**SMALL, "framework": framework, "epochs": 1, "batch_size": 256})
    (row,) = correlate(recipe, tmp_path)[0].to_dict("records")
    first = seen[0].view  # v1 is drawn, and embedded, before v2
    by = {(e.view is first, e.precision.is_fp): e for e in seen}
    e1, e2, e1_q = by[True, True], by[False, True], by[True, False]
    found = [row[c] for c in ("rho", "quantization_error", "contrastive_error", "cross_term")]
    assert found == pytest.approx(_reference_terms(e1_q.p, e1.p, e2.k), abs=1e-5)
    q = e1_q.precision
    assert (row["weight_bits"], row["activation_bits"]) == (q.weight_bits, q.activation_bits)


def test_a_batch_in_parts_is_one_row(tmp_path):
    """The mean of its parts, which are drawn at the same bits."""
    watch, recipe = ErrorCorrelation(), Recipe(**{**SMALL, "epochs": 1, "accumulate": 2})
    run(recipe, tmp_path, watch=watch)
    parts = torch.stack(watch._terms)
    frame = watch.frame(recipe)
    assert len(parts) == 8 and len(frame) == 4
    expected = (parts[0::2, 0] + parts[1::2, 0]) / 2
    torch.testing.assert_close(torch.tensor(frame["rho"].tolist()), expected)
    assert watch._drawn[0::2] == watch._drawn[1::2]
    assert frame["weight_bits"].tolist() == [q.weight_bits for q in watch._drawn[::2]]


def test_the_summary_says_how_large_the_correlation_gets(tmp_path):
    frame, _ = correlate(Recipe(**{**SMALL, "epochs": 1}), tmp_path)
    frame["rho"] = [0.05, -0.2, 0.1, -0.05]
    assert summary(frame) == {
        "steps": 4,
        "mean_rho": pytest.approx(-0.025),
        "mean_abs_rho": pytest.approx(0.1),
        "max_abs_rho": pytest.approx(0.2),
        "share_within_bound": 0.75,
        "bound": 0.1,
    }
    curve, histogram = draw(frame, "a title").axes
    assert curve.lines[0].get_ydata().tolist() == frame.rho.tolist()
    shares = [patch.get_width() for patch in histogram.patches]
    assert sum(shares) == pytest.approx(100)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pairing": "plain"}, "has pairing 'plain', .* add: pairing ssql"),
        ({"pairing": "cq-c", "framework": "simclr"}, "has pairing 'cq-c'"),
        ({"epochs": 0}, "no steps to record; nothing was trained. Add: epochs 5"),
    ],
)
def test_a_recipe_without_these_errors_is_refused(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        correlate(Recipe(**{**SMALL, **fields}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_earlier_run_is_kept(tmp_path):
    (tmp_path / "checkpoint.pth").write_text("precious")
    with pytest.raises(
        ValueError, match="holds an earlier run, whose steps can no longer be recorded"
    ):
        correlate(Recipe(**SMALL), tmp_path)
    assert (tmp_path / "checkpoint.pth").read_text() == "precious"
