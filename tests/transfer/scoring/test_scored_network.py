"""Networks made again from what a job leaves, against the predictions that it kept."""

import pytest
import torch

from lowbit.backbones import create_backbone, save_backbone
from lowbit.data import open_images
from lowbit.quant import Precision
from lowbit.quant.integer.frozen_forward import FrozenForward
from lowbit.quant.smoothing import smoothed_layers
from lowbit.transfer import Recipe, run
from lowbit.transfer.scoring.predict import predicted_classes
from lowbit.transfer.scoring.predictions_file import FILE as PREDICTIONS
from lowbit.transfer.scoring.predictions_file import read_predictions
from lowbit.transfer.scoring.scored_network import ROLE, ScoredNetworks

PRECISIONS = ("FP", "8w8a", "3w3a")
FAST = {"epochs": 1, "lr": 0.05, "batch_size": 128}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("backbone") / "checkpoint.pth"
    torch.manual_seed(0)
    save_backbone(path, create_backbone("resnet10_slim"), {"method": "untrained", "data": "-"})
    return path


@pytest.fixture(
    scope="module",
    params=[
        {"protocol": "linear", "epochs": 2, "lr": 1.0},
        {"protocol": "linear-exact", "l2_strengths": [1e-2], "policy": "lsq"},
        {"protocol": "finetune", **FAST},
        {"protocol": "semi", "policy": "ssql", **FAST},
        {
            "protocol": "qat",
            "policy": {"base": "lsq", "first": 8, "last": 8},
            "fp_start": {"epochs": 1},
            **FAST,
        },
    ],
    ids=lambda fields: fields["protocol"],
)
def job(request, checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    recipe = Recipe(
        checkpoint=str(checkpoint), precisions=PRECISIONS, image_size=16, **request.param
    )
    return recipe, run(recipe, folder), folder


def test_networks_made_again_predict_what_the_job_kept(job, checkpoint):
    recipe, result, folder = job
    scored = ScoredNetworks(folder / result["artifacts"][ROLE])
    (test, *_), kept = read_predictions(folder / PREDICTIONS)
    images = open_images("digits", "test")
    found = {}
    for precision in PRECISIONS:
        network = scored.rebuild(precision, checkpoint)
        batch_size, view = recipe.eval_batch_size, scored.facts.view
        if recipe.protocol in ("linear", "linear-exact"):  # as features are computed
            views = images.batches(view, batch_size=batch_size, device="cpu")
            with FrozenForward(network).at([Precision.parse(precision)]) as forward:
                found[precision] = torch.cat([forward(x)[0].argmax(1) for x in views])
        else:
            found[precision] = predicted_classes(network, images, view, batch_size=batch_size)
        assert torch.equal(found[precision], test.classes[precision])
        assert not network.training
    assert (found["FP"] != found["3w3a"]).any()
    assert list(scored.facts.classes) == kept["classes"]


def test_another_precision_or_file_is_refused(job, checkpoint, tmp_path):
    _, result, folder = job
    scored = ScoredNetworks(folder / result["artifacts"][ROLE])
    with pytest.raises(
        ValueError, match=r"no network at 5w5a; nothing was loaded. It has FP, 8w8a"
    ):
        scored.rebuild("5w5a", checkpoint)
    other = tmp_path / "other.pth"
    other.write_bytes(checkpoint.read_bytes() + b" ")
    with pytest.raises(ValueError, match="is not the checkpoint that was scored"):
        scored.rebuild("FP", other)
    with pytest.raises(FileNotFoundError, match="nothing was loaded"):
        scored.rebuild("FP", tmp_path / "absent.pth")


def test_a_damaged_file_is_refused(job, tmp_path):
    _, result, folder = job
    path = tmp_path / "scored.safetensors"
    path.write_bytes((folder / result["artifacts"][ROLE]).read_bytes()[:-5])
    with pytest.raises(ValueError, match="does not hold the networks of a transfer job"):
        ScoredNetworks(path)
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(ValueError, match="nothing was loaded"):
        ScoredNetworks(path)


@pytest.mark.parametrize(
    "fields",
    [{"protocol": "linear-exact", "l2_strengths": [1e-2]}, {"protocol": "finetune", **FAST}],
)
def test_smoothed_networks_are_made_again(fields, tmp_path):
    torch.manual_seed(0)
    backbone = create_backbone("test_convnext")
    for name, parameter in backbone.named_parameters():
        if "norm" in name:  # uneven channels, so that there is something to smooth
            torch.nn.init.normal_(parameter)
    checkpoint = tmp_path / "checkpoint.pth"
    save_backbone(checkpoint, backbone, {"method": "untrained", "data": "-"})
    policy = {"base": "ptq", "smooth": 0.5, "ranges": "mse"}
    recipe = Recipe(checkpoint=str(checkpoint), precisions=("FP", "4w4a"), policy=policy, **fields)
    result = run(recipe, tmp_path)
    scored = ScoredNetworks(tmp_path / result["artifacts"][ROLE])
    (test, *_), _ = read_predictions(tmp_path / PREDICTIONS)
    for precision in ("FP", "4w4a"):
        network = scored.rebuild(precision, checkpoint)
        smoothed = smoothed_layers(network.backbone).values()
        assert sum(layer.smoothing.applied for layer in smoothed) == 9
        found = predicted_classes(
            network,
            open_images("digits", "test"),
            scored.facts.view,
            batch_size=recipe.eval_batch_size,
        )
        assert torch.equal(found, test.classes[precision])
