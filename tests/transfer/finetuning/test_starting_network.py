"""The start of quantized trainings: trained once for all jobs, or with a classifier from a file."""

import fcntl
import threading

import pytest
import torch

from lowbit.backbones import CheckpointError
from lowbit.common.file_lock import exclusive_lock
from lowbit.training.job_state import Workspace
from lowbit.training.seeding import stream
from lowbit.transfer import Recipe
from lowbit.transfer.finetuning.starting_network import starting_network
from lowbit.transfer.finetuning.training import Training
from lowbit.transfer.probes.checkpoint_head import stored_classifier

CPU = torch.device("cpu")


def _recipe(tmp_path, **fields):
    settings = {
        "protocol": "qat",
        "batch_size": 64,
        "fp_start": {"epochs": 2, "lr": 0.1},
        "cache_dir": str(tmp_path / "shared"),
    }
    return Recipe(checkpoint="b.pth", **{**settings, **fields})


def _start(net, train, recipe, folder):
    folder.mkdir(exist_ok=True)
    workspace = Workspace(folder, key={"folder": str(folder)})
    return starting_network(net, train, recipe=recipe, workspace=workspace, device=CPU)


@pytest.fixture
def epochs_trained(monkeypatch):
    original, epochs = Training.train_epoch, []
    monkeypatch.setattr(
        Training,
        "train_epoch",
        lambda self, stop: epochs.append(self.epoch) or original(self, stop),
    )
    return epochs


def test_a_start_is_trained_once_for_jobs_that_differ_in_what_follows(
    tiny_net, few_digits, tmp_path, epochs_trained
):
    one = _start(tiny_net(), few_digits, _recipe(tmp_path), tmp_path / "one")
    other = _recipe(tmp_path, seed=3, optimizer="adamt", policy="tr", precisions=("2w2a",))
    two = _start(tiny_net(), few_digits, other, tmp_path / "two")
    assert epochs_trained == [0, 1]
    assert two.details == one.details and one.details["kind"] == "fp-start"
    weights = (start.network.state_dict() for start in (one, two))
    assert all(a.equal(b) for a, b in zip(*(w.values() for w in weights), strict=True))


@pytest.mark.parametrize(
    "fields",
    [{"fp_start": {"epochs": 2, "lr": 0.2}}, {"augmentation": {"flip": 0}}, {"batch_size": 50}, {}],
)
def test_another_start_is_trained_anew(tiny_net, few_digits, tmp_path, epochs_trained, fields):
    one = _start(tiny_net(), few_digits, _recipe(tmp_path), tmp_path / "one")
    backbone = tiny_net(0 if fields else 1)
    two = _start(backbone, few_digits, _recipe(tmp_path, **fields), tmp_path / "two")
    assert epochs_trained == [0, 1, 0, 1]
    assert one.details["state_sha256"] != two.details["state_sha256"]


def test_a_start_that_is_not_shared_is_a_part_of_the_job(
    tiny_net, few_digits, tmp_path, epochs_trained
):
    recipe = _recipe(tmp_path, cache_dir=None)
    starts = [_start(tiny_net(), few_digits, recipe, tmp_path / "job") for _ in range(2)]
    assert epochs_trained == [0, 1] and starts[0].details == starts[1].details
    assert (tmp_path / "job" / "parts" / "start" / "last.pth").exists()


def test_whoever_trains_or_finds_a_start_draws_the_same_afterwards(tiny_net, few_digits, tmp_path):
    drawn = []
    for folder in ("one", "two"):
        torch.manual_seed(5)
        _start(tiny_net(), few_digits, _recipe(tmp_path), tmp_path / folder)
        drawn.append(torch.rand(1))
    assert drawn[0].equal(drawn[1])


def test_the_second_waits_until_the_first_lets_go(tmp_path):
    entered = threading.Event()

    def second():
        with exclusive_lock(tmp_path / "lock", "a start"):
            entered.set()

    with (tmp_path / "lock").open("a") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(5)
    thread.join()


def test_the_classifier_of_a_checkpoint_starts_the_network(tiny_net, few_digits, tmp_path):
    weight, bias = torch.randn(10, 16), torch.randn(10)
    path = tmp_path / "b.pth"
    torch.save({"state_dict": {"module.fc.weight": weight, "module.fc.bias": bias}}, path)
    recipe = Recipe(checkpoint=str(path), protocol="qat", checkpoint_head=True)
    start = _start(tiny_net(), few_digits, recipe, tmp_path / "job")
    assert start.network.fc.weight.equal(weight) and start.network.fc.bias.equal(bias)
    assert start.details["kind"] == "checkpoint-head"


@pytest.mark.parametrize(
    "name", ["fc", "classifier", "classifier.1", "head", "head.fc", "heads.head", "backbone.fc"]
)
def test_a_classifier_is_found_under_the_names_of_torchvision_and_timm(tmp_path, name):
    weight = torch.randn(10, 16)
    other = {"fc.0.weight": torch.randn(10, 16), "layer.fc.x.weight": torch.randn(10, 16)}
    torch.save({**other, f"{name}.weight": weight}, tmp_path / "b.pth")
    found, bias = stored_classifier(tmp_path / "b.pth", num_features=16, num_classes=10)
    assert found.equal(weight) and bias.equal(torch.zeros(10))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"conv.weight": torch.zeros(10, 16)}, r"has none .*nothing was trained.*fp_start"),
        ({"fc.weight": torch.zeros(1000, 16)}, r"fc.weight \(1000, 16\), not .*\(10, 16\) of 10"),
    ],
)
def test_a_file_without_the_classifier_is_refused(tmp_path, tensors, message):
    torch.save(tensors, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=message):
        stored_classifier(tmp_path / "b.pth", num_features=16, num_classes=10)


def test_a_random_classifier_is_the_seed_s(tiny_net, few_digits, tmp_path):
    recipe = _recipe(tmp_path, fp_start=None, seed=4)
    start = _start(tiny_net(), few_digits, recipe, tmp_path / "job")
    wanted = torch.empty(10, 16).normal_(std=0.01, generator=stream(4, "classifier"))
    assert start.network.fc.weight.equal(wanted)
