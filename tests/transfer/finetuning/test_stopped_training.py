"""Told to stop at any step, each protocol that trains saves, leaves, and goes on to the same bits."""

import multiprocessing
import os
import signal

import pytest
import torch

from lowbit.common.preemption import Preempted
from lowbit.data import open_images
from lowbit.training.job_state import Workspace
from lowbit.transfer import Recipe
from lowbit.transfer.finetuning.training import Training
from lowbit.transfer.probes.sgd_probe import LinearFit
from lowbit.transfer.recipe.protocol_registry import get_protocol
from tests.transfer.protocols.test_adaptive import _backbone as residual_net

CPU = torch.device("cpu")
EPOCHS = 2
QAT = {"protocol": "qat", "policy": "lsq", "lr": 0.02, "precisions": ("3w3a", "2w2a")}
ADAPTIVE = {"bits": (8, 4, 2), "zero_shot": (3,), "norm_batches": 1, "swap_probability": 0.3}
JOBS = {
    "finetune": {"protocol": "finetune", "precisions": ("FP",), "warmup_fc": {"epochs": 1}},
    "finetune, adam, bf16": {
        **{"protocol": "finetune", "precisions": ("FP",)},
        **{"optimizer": "adam", "lr": 1e-3, "amp": "bf16"},
    },
    "semi": {"protocol": "semi", "precisions": ("FP", "4w4a"), "label_fraction": 1.0},
    "qat": QAT,
    "qat, sgdt, from a trained start": {
        **QAT,
        **{"optimizer": "sgdt", "policy": "tr", "precisions": ("2w2a",)},
        "fp_start": {"epochs": EPOCHS, "lr": 0.05},
    },
    "adaptive": {"protocol": "adaptive", "adaptive": ADAPTIVE, "image_size": 16, "lr": 0.02},
    "adaptive, individual": {
        **{"protocol": "adaptive", "image_size": 16, "lr": 0.02},
        "adaptive": {"method": "individual", "bits": (8, 2), "zero_shot": (), "norm_batches": 1},
    },
}


def _stops(steps, trainings):
    """In mid-epoch, in the last step of an epoch, in the first, and in the last of each training."""
    of_one = (2, steps, steps + 1, EPOCHS * steps)
    return [EPOCHS * steps * training + stop for training in range(trainings) for stop in of_one]


def _recipe(job):
    return Recipe(
        checkpoint="b.pth",
        **{"epochs": EPOCHS, "batch_size": 64, "checkpoint_every": 50, **JOBS[job]},
    )


def _fit(make, split, recipe, folder):
    folder.mkdir(exist_ok=True)
    protocol = get_protocol(recipe.protocol)
    val = {"val": open_images("digits", "val")} if protocol.watches else {}
    return protocol.fit(
        make(), split, recipe=recipe, workspace=Workspace(folder, key={}), device=CPU, **val
    )


def _signalled(patch, signum, stops, *, owner=Training, name="_step"):
    """Send this process a signal in these steps, counted over all of its trainings, each once."""
    step, left, taken = getattr(owner, name), list(stops), []

    def signalled(self, *args, **options):
        loss = step(self, *args, **options)
        taken.append(1)
        if len(taken) in left:
            left.remove(len(taken))
            os.kill(os.getpid(), signum)
        return loss

    patch.setattr(owner, name, signalled)
    return taken


def _files(folder):
    """The weights and curves of all trainings of a job."""
    found = {}
    for path in sorted(folder.rglob("last.pth")):
        state = torch.load(path, weights_only=True)
        for name, tensor in state.get("network", {}).items():
            found[f"{path.parent.relative_to(folder)}: {name}"] = tensor.numpy().tobytes()
    for path in sorted(folder.rglob("metrics.jsonl")):
        found[f"{path.relative_to(folder)}"] = path.read_text()
    return found


@pytest.mark.parametrize("job", JOBS)
def test_a_stopped_job_ends_in_the_same_bits(job, tiny_net, few_digits, tmp_path, monkeypatch):
    recipe = _recipe(job)
    make = residual_net if recipe.protocol == "adaptive" else tiny_net
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    with monkeypatch.context() as patch:
        steps = _signalled(patch, signal.SIGTERM, [])
        straight = _fit(make, few_digits, recipe, whole)
    trainings = len(list(whole.rglob("metrics.jsonl")))
    stops = _stops(len(steps) // (EPOCHS * trainings), trainings)
    taken = _signalled(monkeypatch, signal.SIGTERM, stops)
    for _ in stops:
        with pytest.raises(Preempted, match=r"after \d of 2 epochs.*holds the state") as caught:
            _fit(make, few_digits, recipe, cut)
        assert caught.value.code == 75
        torch.rand(7)  # whatever else happens in between
    resumed = _fit(make, few_digits, recipe, cut)
    assert len(taken) == len(steps)  # no step was taken twice
    assert resumed.details == straight.details
    files = [_files(folder) for folder in (whole, cut)]
    assert files[0].keys() == files[1].keys()
    assert [name for name in files[0] if files[0][name] != files[1][name]] == []
    one, other = (fitted.predict(few_digits) for fitted in (straight, resumed))
    assert all(one[name].equal(other[name]) for name in map(str, recipe.precisions))


def test_a_stopped_process_has_the_exit_code_of_preemption(
    tiny_net, few_digits, tmp_path, monkeypatch
):
    _signalled(monkeypatch, signal.SIGTERM, [2])
    process = multiprocessing.get_context("fork").Process(
        target=_fit, args=(tiny_net, few_digits, _recipe("finetune"), tmp_path)
    )
    process.start()
    process.join()
    assert process.exitcode == os.EX_TEMPFAIL and (tmp_path / "last.pth").is_file()


LINEAR = {
    "one rate": {"lr": 1.0},
    "rates and views": {"lr": (1.0, 0.3), "augment_views": 2},
}


@pytest.mark.parametrize("job", LINEAR)
def test_a_stopped_linear_fit_ends_in_the_same_bits(
    job, tiny_net, few_digits, tmp_path, monkeypatch
):
    """200 images are four steps an epoch: stops within epochs, between them, and at the very end."""
    fields = {"protocol": "linear", "precisions": ("FP", "3w3a"), "weight_decay": 1e-4}
    recipe = Recipe(checkpoint="b.pth", epochs=3, batch_size=64, **fields, **LINEAR[job])
    val = {"val": open_images("digits", "val")}

    def fit(folder):
        folder.mkdir(exist_ok=True)
        workspace = Workspace(folder, key={})
        protocol = get_protocol("linear")
        return protocol.fit(
            tiny_net(), few_digits, recipe=recipe, workspace=workspace, device=CPU, **val
        )

    straight = fit(tmp_path / "whole")
    stops = [1, 4, 6, 7, 12]
    taken = _signalled(monkeypatch, signal.SIGTERM, stops, owner=LinearFit, name="step")
    for stop in stops:
        epochs, steps = divmod(stop, 4)
        with pytest.raises(Preempted) as caught:
            fit(tmp_path / "cut")
        place = f"after {epochs} of 3 epochs" + f" and {steps} steps" * bool(steps)
        assert f"{place}; " in str(caught.value) and caught.value.code == os.EX_TEMPFAIL
    resumed = fit(tmp_path / "cut")
    assert len(taken) == 12  # no step was taken twice
    assert resumed.details == straight.details
    for precision, head in straight.predict.heads.items():
        assert all(a.equal(b) for a, b in zip(head, resumed.predict.heads[precision], strict=True))
    curves = [tmp_path / run / "metrics.jsonl" for run in ("whole", "cut")]
    assert curves[0].read_text() == curves[1].read_text()


def test_a_classifier_stopped_while_it_warms_up_ends_in_the_same_bits(
    tiny_net, few_digits, tmp_path, monkeypatch
):
    recipe = _recipe("finetune")
    straight = _fit(tiny_net, few_digits, recipe, tmp_path / "whole")
    taken = _signalled(monkeypatch, signal.SIGTERM, [2, 4], owner=LinearFit, name="step")
    for _ in range(2):
        with pytest.raises(Preempted, match=r"after [01] of 1 epochs"):
            _fit(tiny_net, few_digits, recipe, tmp_path / "cut")
    resumed = _fit(tiny_net, few_digits, recipe, tmp_path / "cut")
    assert len(taken) == 4 and resumed.details == straight.details
    assert _files(tmp_path / "whole") == _files(tmp_path / "cut")


def test_a_lost_linear_fit_is_not_saved_by_a_signal(tiny_net, few_digits, tmp_path, monkeypatch):
    _signalled(monkeypatch, signal.SIGTERM, [3], owner=LinearFit, name="step")
    recipe = Recipe(checkpoint="b.pth", lr=1e38, epochs=2, batch_size=64, precisions=("FP",))
    with pytest.raises(FloatingPointError, match="linear classifier's loss"):
        get_protocol("linear").fit(
            tiny_net(),
            few_digits,
            recipe=recipe,
            workspace=Workspace(tmp_path, key={}),
            device=CPU,
        )
    assert not (tmp_path / "last.pth").exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGUSR1])
def test_other_signals_stop_it_and_handlers_are_as_before(
    signum, tiny_net, few_digits, tmp_path, monkeypatch
):
    before = signal.getsignal(signum)
    _signalled(monkeypatch, signum, [3])
    told = f"stopped by signal {signum:d} after 0 of 2 epochs and 3 steps; .*last.pth holds"
    with pytest.raises(Preempted, match=told):
        _fit(tiny_net, few_digits, _recipe("finetune"), tmp_path)
    assert signal.getsignal(signum) is before


def test_a_lost_loss_is_not_saved_by_a_signal(tiny_net, few_digits, tmp_path, monkeypatch):
    _signalled(monkeypatch, signal.SIGTERM, [3])
    recipe = _recipe("finetune").model_copy(update={"lr": 1e20})
    with pytest.raises(FloatingPointError, match=r"at step [12] with lr"):
        _fit(tiny_net, few_digits, recipe, tmp_path)
    assert not (tmp_path / "last.pth").exists()
