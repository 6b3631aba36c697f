"""Curves of quantization-aware training: the frames equal the files, the pictures the frames."""

import json
import math

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from lowbit.quant import (
    Precision,
    calibrate,
    get_policy,
    quantize,
    quantized_layers,
    set_precision,
    t_variant,
)
from lowbit.transfer.analyses.epoch_rows import EpochRow, read_parts, read_rows
from lowbit.transfer.analyses.runs import pick_layer, read
from lowbit.transfer.analyses.transitions import draw_curves, draw_latent
from lowbit.transfer.finetuning.epoch_log import Transitions

LAYERS = ["layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1"]
EDGES = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]


def make_row(epoch, *, scheduled=True, **changes):
    """Return an epoch as protocol qat writes it; layer l and epoch t give every number another value."""
    places = [(10 * epoch + layer) / 1e4 for layer in range(len(LAYERS))]
    transitions = {
        "names": LAYERS,
        "rate": places,
        "effective_step": [x / 2 for x in places],
    }
    if scheduled:
        transitions |= {
            "target": 0.005 / (epoch + 1),
            "running": [x / 3 for x in places],
            "lr": [x * 7 for x in places],
        }
    latent = {
        "names": LAYERS,
        "histogram": [[layer + 1, 2, 3 + epoch, 4, 5] for layer in range(len(LAYERS))],
        "edges": EDGES,
        "mean_distance": [0.25 + x for x in places],
    }
    row = {
        "epoch": epoch,
        "lr": 0.1 / (epoch + 1),
        "loss": {"train": 1.5 - epoch / 10},
        "accuracy": {"train": 60.0 + epoch, "val": 55.0 + epoch},
        "transitions": transitions,
        "latent": latent,
    }
    return row | changes


@pytest.fixture
def write(tmp_path):
    """Write a job's folder; return it."""

    def _write(name, rows, *, precision="2w2a", recipe=None, tail=""):
        folder = tmp_path / name / "parts" / precision
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + tail)
        if recipe is not None:
            (tmp_path / name / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        return tmp_path / name

    return _write


def _line(axes, width, index=0):
    """The data of a run's line of this width."""
    lines = [line for line in axes.lines if line.get_linewidth() == width]
    return np.asarray(lines[index].get_ydata(), float)


def test_frames_hold_every_number_of_the_files(write):
    rows = [make_row(epoch) for epoch in range(3)]
    frames = read([write("a", rows)])
    found = frames["transitions"]
    assert len(found) == 3 * len(LAYERS) and set(found.job) == {"a"}
    for row in rows:
        of_epoch = found[found.epoch == row["epoch"]]
        assert of_epoch.layer.tolist() == LAYERS
        for name in ("rate", "running", "lr", "effective_step"):
            assert of_epoch[name].tolist() == row["transitions"][name]
        assert of_epoch.target.tolist() == [row["transitions"]["target"]] * len(LAYERS)
        assert of_epoch.mean_distance.tolist() == row["latent"]["mean_distance"]
    curves = frames["curves"]
    assert curves.lr.tolist() == [row["lr"] for row in rows]
    assert curves.loss_train.tolist() == [row["loss"]["train"] for row in rows]
    assert curves.accuracy_val.tolist() == [55.0, 56.0, 57.0]
    latent = frames["latent"]
    of_layer = latent[(latent.epoch == 2) & (latent.layer == LAYERS[1])]
    assert of_layer["count"].tolist() == [2, 2, 5, 4, 5]
    assert of_layer.left.tolist() == EDGES[:-1] and of_layer.right.tolist() == EDGES[1:]


def test_one_controller_for_all_layers_is_repeated_for_each(write):
    row = make_row(0)
    row["transitions"] |= {"running": 0.002, "lr": [0.5]}
    found = read([write("a", [row])])["transitions"]
    assert found.running.tolist() == [0.002] * 3 and found.lr.tolist() == [0.5] * 3


def test_thick_lines_are_means_over_layers_and_thin_ones_layers(write):
    frames = read([write("a", [make_row(epoch) for epoch in range(3)])])
    rate, lr, step, distance, *_ = draw_curves(frames).axes
    places = np.array([[10 * t + layer for layer in range(3)] for t in range(3)]) / 1e4
    assert _line(rate, 2) == pytest.approx(places.mean(1) / 3)
    assert _line(lr, 2) == pytest.approx(7 * places.mean(1))
    assert _line(step, 2) == pytest.approx(places.mean(1) / 2)
    assert _line(distance, 2) == pytest.approx(0.25 + places.mean(1))
    for layer in range(3):
        assert _line(lr, 0.6, layer) == pytest.approx(7 * places[:, layer])
    assert _line(rate, 1.2) == pytest.approx([0.005, 0.0025, 0.005 / 3])  # the target


def test_a_plain_optimizer_has_rates_and_its_own_learning_rate_but_no_target(write):
    rows = [make_row(epoch, scheduled=False) for epoch in range(2)]
    rows[0]["transitions"]["running"] = rows[1]["transitions"]["running"] = [1e-4, 2e-4, 6e-4]
    rate, lr, *_ = draw_curves(read([write("counted", rows)])).axes
    assert _line(rate, 2) == pytest.approx([3e-4, 3e-4]) and _line(lr, 2).tolist() == [0.1, 0.05]


def test_without_a_running_rate_the_last_steps_is_drawn(write):
    rows = [make_row(epoch, scheduled=False) for epoch in range(2)]
    frames = read([write("a", rows)])
    assert frames["transitions"][["target", "running", "lr"]].isna().all(axis=None)
    rate, lr, *_ = draw_curves(frames).axes
    assert _line(rate, 2) == pytest.approx([1e-4, 11e-4])
    assert _line(lr, 2).tolist() == [0.1, 0.05]
    assert np.isnan(_line(rate, 1.2)).all()


def test_losses_and_accuracies_are_drawn_by_split(write):
    *_, loss, accuracy = draw_curves(read([write("a", [make_row(0), make_row(1)])])).axes
    assert _line(loss, 1.0).tolist() == [1.5, 1.4]
    assert _line(accuracy, 1.0).tolist() == [60.0, 61.0]
    assert _line(accuracy, 2.0).tolist() == [55.0, 56.0]


def test_histograms_add_layers_up_and_sum_to_all_weights(write):
    latent = read([write("a", [make_row(epoch) for epoch in range(9)])])["latent"]
    (axes,) = draw_latent(latent).axes
    assert [patch.get_label() for patch in axes.patches] == [f"epoch {t}" for t in (0, 3, 5, 8)]
    values = axes.patches[0].get_data().values
    assert values == pytest.approx(100 * np.array([6, 6, 9, 12, 15]) / 48)
    assert axes.patches[0].get_data().edges.tolist() == EDGES


def test_chosen_epochs_and_one_layer(write):
    frames = read([write("a", [make_row(epoch) for epoch in range(4)])])
    shown = pick_layer(frames, LAYERS[2])
    (axes,) = draw_latent(shown["latent"], [3, 1]).axes
    assert [patch.get_label() for patch in axes.patches] == ["epoch 1", "epoch 3"]
    assert axes.patches[0].get_data().values == pytest.approx(100 * np.array([3, 2, 4, 4, 5]) / 18)
    rate = draw_curves(shown).axes[0]
    assert _line(rate, 2) == pytest.approx([(10 * t + 2) / 3e4 for t in range(4)])


def test_precisions_of_a_job_are_runs_from_many_bits_to_few(write):
    folder = write("a", [make_row(0)], precision="2w2a")
    write("a/../a", [make_row(0)], precision="4w4a")
    (folder / "parts" / "fit").mkdir()  # another part of the job
    (folder / "parts" / "fit" / "metrics.jsonl").write_text('{"epoch": 0}\n')
    frames = read([folder])
    assert list(frames["curves"].precision) == ["4w4a", "2w2a"]
    (legend,) = draw_curves(frames).legends
    assert [text.get_text() for text in legend.get_texts()] == ["4w4a", "2w2a"]


@pytest.mark.parametrize(
    ("recipes", "labels"),
    [
        ([{"optimizer": "sgd", "transition": None}] * 2, ["a", "b"]),
        ([{"optimizer": "sgd", "name": "x"}, {"optimizer": "sgdt", "name": "y"}], ["sgd", "sgdt"]),
        ([{"optimizer": "sgd", "lr": 0.1}, {"optimizer": "adam", "lr": 1e-3}], ["sgd", "adam"]),
        (
            [{"optimizer": o, "seed": s} for o, s in (("sgd", 0), ("sgd", 1), ("adam", 0))],
            ["sgd, seed 0", "sgd, seed 1", "adam, seed 0"],
        ),
        ([{"t": {"lambda_": 1e-3}}, {"t": {"lambda_": 5e-3}}], ["lambda 0.001", "lambda 0.005"]),
        ([{"p": 1, "q": 1, "r": 1, "s": 1}, {"p": 2, "q": 2, "r": 2, "s": 2}], ["a", "b"]),
        ([None, {"optimizer": "sgd"}], ["a", "b"]),
    ],
)
def test_jobs_are_named_by_what_their_recipes_differ_in(write, recipes, labels):
    jobs = [write(n, [make_row(0)], recipe=r) for n, r in zip("abc", recipes, strict=False)]
    assert list(read(jobs)["curves"].job) == labels


def test_the_cut_line_of_a_killed_run_is_left_out(write):
    whole = [make_row(epoch) for epoch in range(2)]
    folder = write("a", whole, tail=json.dumps(make_row(2))[:50])
    frames = read([folder])
    assert frames["curves"].epoch.tolist() == [0, 1]
    assert _line(draw_curves(frames).axes[1], 2).shape == (2,)


def test_a_part_without_an_epoch_yet_is_left_out(write):
    folder = write("a", [make_row(0)], precision="4w4a")
    write("a/../a", [], precision="2w2a")
    assert list(read_parts(folder)) == ["4w4a"]


def test_rows_may_hold_more_than_is_drawn():
    row = EpochRow.model_validate(make_row(0, seconds=12.5))
    assert row.transitions.by_layer("target") == [0.005] * 3


@pytest.mark.parametrize("scope", [None, "layer", "global"])
def test_what_a_training_records_is_such_a_row(scope):
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(a, b, 3) for a, b in ((3, 4), (4, 4), (4, 4), (4, 4))]
    network = quantize(nn.Sequential(*convolutions), get_policy("tr"))
    x = torch.rand(4, 3, 12, 12)
    calibrate(network, [x])
    set_precision(network, Precision(2, 2))
    if scope is None:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    else:
        facts = {"lr": 0.1, "target": 0.01, "total_steps": 5, "scope": scope}
        optimizer = t_variant(torch.optim.SGD)(network.parameters(), model=network, **facts)
    watch = Transitions(network, optimizer)
    network(x).square().sum().backward()
    optimizer.step()
    seen = json.loads(json.dumps(watch(0)))
    row = EpochRow.model_validate(make_row(0) | seen)
    layers = list(quantized_layers(network))
    assert set(row.transitions.names) == set(row.latent.names) <= set(layers)
    assert len(row.transitions.names) > 1
    for name in ("rate", "effective_step", "running", "lr", "target"):
        values = row.transitions.by_layer(name)
        assert (values == [None] * len(values)) == (scope is None and name in ("lr", "target"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transitions": None}, "transitions"),
        ({"transitions": make_row(0)["transitions"] | {"rate": [0.1]*2}}, "rate has 2 values for 3"),
        ({"latent": make_row(0)["latent"] | {"edges": [0.0, 0.5]}}, "a different number of bins than edges"),
        ({"latent": make_row(0)["latent"] | {"mean_distance": []}}, "one entry per layer"),
    ],
)  # fmt: skip
def test_a_row_of_another_kind_is_refused_with_its_place(write, change, message):
    folder = write("a", [make_row(0), make_row(1, **change)])
    with pytest.raises(ValueError, match=f"line 2, is not an epoch .*{message}.*nothing was drawn"):
        read([folder])


def test_a_cut_line_that_is_not_the_last_is_refused(write):
    folder = write("a", [make_row(0)], tail='{"epoch":\n' + json.dumps(make_row(1)) + "\n")
    with pytest.raises(ValueError, match="line 2, is not an epoch"):
        read_rows(folder / "parts" / "2w2a" / "metrics.jsonl")


def test_what_cannot_be_drawn_is_refused(write, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nothing was drawn"):
        read([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"contains no epoch .*protocol qat"):
        read([tmp_path / "empty"])
    folder = write("a", [make_row(0)])
    with pytest.raises(ValueError, match="listed twice"):
        read([folder, tmp_path / "." / "a"])
    frames = read([folder])
    with pytest.raises(ValueError, match=r"has a quantized layer 'fc'.*layer1.0.conv1"):
        pick_layer(frames, "fc")
    with pytest.raises(ValueError, match=r"in epoch 7; nothing was drawn.*last is 0"):
        draw_latent(frames["latent"], [7])
    with pytest.raises(ValueError, match="recorded no latent weights"):
        draw_latent(read([write("b", [make_row(0, latent=None)])])["latent"])


def test_more_runs_than_colours_are_refused(write):
    jobs = [write(f"job{index}", [make_row(0)]) for index in range(11)]
    with pytest.raises(ValueError, match=r"11 runs .*10 runs at most"):
        draw_curves(read(jobs))


def test_a_job_without_latent_weights_still_has_curves(write):
    frames = read([write("a", [make_row(0, latent=None)])])
    assert math.isnan(frames["transitions"].mean_distance.iloc[0]) and frames["latent"].empty
    assert len(draw_curves(frames).axes) == 6
