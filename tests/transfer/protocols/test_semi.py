"""Few labels: which ones, and one training a precision at that precision, each resumable."""

import pytest
import torch
from torch.nn import functional as F

from lowbit.data import open_images
from lowbit.quant import FP, Precision, get_policy, quantize, quantized_layers, set_precision
from lowbit.training.job_state import Workspace
from lowbit.training.seeding import minibatches, stream
from lowbit.transfer import Recipe
from lowbit.transfer.features.calibration import calibrate_on
from lowbit.transfer.features.views import crop
from lowbit.transfer.finetuning.training import Network, Training
from lowbit.transfer.recipe.protocol_registry import get_protocol
from lowbit.transfer.scoring.labelled_share import labelled_places

CPU = torch.device("cpu")
PINNED = [84, 121, 186, 195, 373, 646, 785, 1248, 1453, 1509]


def _recipe(**fields):
    settings = {
        "protocol": "semi",
        "epochs": 3,
        "batch_size": 16,
        "label_fraction": 0.25,
        "policy": "cq",
        "precisions": ("FP", "4w4a"),
    }
    return Recipe(checkpoint="b.pth", **{**settings, **fields})


def _fit(net, split, recipe, folder):
    folder.mkdir(exist_ok=True)
    workspace = Workspace(folder, key={})
    fit = get_protocol("semi").fit
    return fit(net, split, recipe=recipe, workspace=workspace, device=CPU)


def test_labels_are_balanced_pinned_and_nested():
    digits = open_images("digits", "train")  # 1,077 images, 104 to 111 of each class
    one, ten, all_of_them = (labelled_places(digits, share) for share in (0.01, 0.1, 1.0))
    assert digits.labels[one].bincount().tolist() == [1] * 10
    assert digits.labels[ten].bincount().tolist() == [11] * 10  # 10.77, rounded
    assert digits.labels[all_of_them].bincount().max() == 108  # 107.7: no class gives more
    assert set(one.tolist()) < set(ten.tolist()) < set(range(len(digits)))
    assert digits.ids[one].tolist() == PINNED  # whatever the machine, the library or the seed


@pytest.mark.parametrize("precision", ["FP", "4w4a"])
def test_training_is_plain_sgd_at_that_precision_on_the_labelled_images(
    tiny_net, few_digits, see, tmp_path, precision
):
    recipe = _recipe(nesterov=True)
    fitted = _fit(tiny_net(), few_digits, recipe, tmp_path)
    places = labelled_places(few_digits, 0.25)

    weight = torch.empty(10, 16).normal_(std=0.01, generator=stream(0, "classifier"))
    reference = Network(tiny_net(), weight, torch.zeros(10))
    if precision != "FP":
        quantize(reference.backbone, get_policy("cq"))
        calibrate_on(reference.backbone, few_digits, recipe=recipe, device=CPU)
        set_precision(reference.backbone, Precision(4, 4))
    reference.train()
    parameters = list(reference.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True)
    order, draws = stream(0, "order"), stream(0, "views")
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = [0.1, 0.075, 0.025][epoch]  # half a cosine
        for batch in minibatches(len(places), 16, order):
            x = see(few_digits, crop(recipe, k=epoch), places=places[batch], generator=draws)
            optimizer.zero_grad()
            F.cross_entropy(reference(x), few_digits.labels[places[batch]]).backward()
            optimizer.step()
    reference.eval()
    with torch.no_grad():
        wanted = reference(see(few_digits)).argmax(dim=1)
    assert fitted.predict(few_digits)[precision].equal(wanted)
    state = torch.load(tmp_path / fitted.artifacts[f"network {precision}"], weights_only=True)
    for name, found in reference.state_dict().items():
        assert torch.allclose(state["network"][name].float(), found.float(), atol=1e-6), name


def test_low_precision_is_trained_and_scored_low(tiny_net, few_digits, tmp_path):
    fitted = _fit(tiny_net(), few_digits, _recipe(policy="ssql"), tmp_path)
    networks = fitted.predict.args[0]
    assert not quantized_layers(networks[FP].backbone)
    layers = list(quantized_layers(networks[Precision(4, 4)].backbone).values())
    channels = layers[1].quantized_weight().flatten(1)
    assert max(len(channel.unique()) for channel in channels) <= 16
    assert not layers[1].weight.equal(networks[FP].backbone.body[3].weight)


def test_a_killed_job_resumes_to_the_same_bits(tiny_net, few_digits, tmp_path, monkeypatch):
    recipe = _recipe(epochs=4, checkpoint_every=1)
    straight = _fit(tiny_net(), few_digits, recipe, tmp_path / "straight")
    original, epochs = Training.train_epoch, []

    def killing(self, stop):
        epochs.append(self.epoch)
        if len(epochs) == 7:  # in the third epoch of the second training
            raise KeyboardInterrupt
        return original(self, stop)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "train_epoch", killing)
        with pytest.raises(KeyboardInterrupt):
            _fit(tiny_net(), few_digits, recipe, tmp_path / "killed")
        epochs.clear()
        resumed = _fit(tiny_net(), few_digits, recipe, tmp_path / "killed")
    assert epochs == [2, 3]  # nothing that was finished was trained again
    assert resumed.details == straight.details
    for path in straight.artifacts.values():
        one, other = (
            torch.load(tmp_path / run / path, weights_only=True)["network"]
            for run in ("straight", "killed")
        )
        assert all(one[name].equal(other[name]) for name in one)
