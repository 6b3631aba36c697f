"""A whole job: its result, resuming to the bit, stopping where the loss is lost."""

import json

import pytest
import torch

from lowbit.backbones import create_backbone, load_backbone
from lowbit.data.views.training_views import view_source
from lowbit.pretrain import Recipe, run
from lowbit.pretrain.trainer import Trainer, feature_std
from tests.small_digits import COUNTS
from tests.small_digits import NAME as SMALL_DIGITS

SMALL = {
    "architecture": "resnet10_slim",
    "dataset": SMALL_DIGITS,
    "image_size": 8,
    "batch_size": 64,
    "dim": 16,
    "hidden_dim": 8,
    "checkpoint_every": 2,
}
CPU = torch.device("cpu")


def _recipe(**fields):
    return Recipe(**{**SMALL, "epochs": 3, "device": "cpu", **fields})


def _lines(folder):
    """The metrics of each epoch, without what a clock and a machine add."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert line.pop("images_per_s") > 0 and line.pop("peak_memory_mb") > 0
    return lines


class _Killed(BaseException):
    """What a signal looks like from inside."""


def _kill_after(monkeypatch, epochs):
    """Let the job die in the middle of an epoch, after `epochs` whole ones."""
    train_epoch = Trainer.train_epoch

    def dying(self):
        for _ in train_epoch(self):
            if (self.epoch, self.position) == (epochs, 2):
                self.streams["order"].seed()
                raise _Killed
            yield

    monkeypatch.setattr(Trainer, "train_epoch", dying)


def test_a_job_leaves_a_backbone_of_its_own_weights(tmp_path):
    recipe = _recipe(pairing="ssql", epochs=1, seed=4)
    result = run(recipe, tmp_path)
    assert json.loads(json.dumps(result)) == result
    assert result["artifacts"] == {"checkpoint": "checkpoint.pth"}
    backbone, report = load_backbone(tmp_path / "checkpoint.pth")
    assert report.share == 1.0 and report.sha256 == result["checkpoint"]["sha256"]
    assert result["checkpoint"]["method"] == report.meta["method"] == "SSQL"
    assert report.meta["data"] == SMALL_DIGITS and report.meta["seed"] == 4
    assert report.meta["config"]["pairing"] == "ssql"
    saved = torch.load(tmp_path / "last.pth", weights_only=True)["trainer"]["framework"]
    weights = backbone.state_dict()
    assert not [name for name in weights if "quant" in name]
    for name, tensor in weights.items():
        assert torch.equal(tensor, saved[f"encoder.backbone.{name}"])
    found = {m["metric"]: m for m in result["measurements"]}
    assert set(found) == {"loss", "feature_std"}
    assert found["loss"]["value"] == _lines(tmp_path)[-1]["loss"]
    assert found["loss"]["n"] == COUNTS["train"] and found["loss"]["split"] == "train"


def test_training_changes_the_weights_and_lowers_the_loss(tmp_path):
    run(_recipe(dataset="digits", epochs=4, lr=0.1), tmp_path)
    losses = [line["loss"] for line in _lines(tmp_path)]
    assert losses[-1] < losses[0] - 0.1


def test_metrics_say_what_each_epoch_saw(tmp_path):
    run(_recipe(pairing="ssql", epochs=2), tmp_path)
    first, second = _lines(tmp_path)
    assert (first["epoch"], second["epoch"], second["step"]) == (1, 2, 8)
    assert (first["lr"], second["lr"]) == pytest.approx((0.05, 0.025))
    assert sum(first["bits"].values()) == 4  # one draw a step
    assert first["loss"] == pytest.approx(sum(first["terms"].values()) / 2)
    assert first["terms"].keys() == {"v1,q -> v2,FP and back", "v1,FP - v2,FP"}


def test_the_untrained_network_is_the_seeds_initialization(tmp_path):
    result = run(_recipe(epochs=0, seed=9), tmp_path)
    assert result["checkpoint"]["method"] == "untrained" and result["measurements"] == []
    backbone, report = load_backbone(tmp_path / "checkpoint.pth")
    assert report.meta["method"] == "untrained"
    torch.manual_seed(9)
    expected = create_backbone("resnet10_slim").state_dict()
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_methods_of_one_seed_start_alike_and_see_the_same_views():
    trainers = []
    for pairing in ("plain", "ssql"):
        torch.manual_seed(0)
        source = view_source(SMALL_DIGITS, "train", size=8, augmentation={})
        trainers.append(Trainer(_recipe(pairing=pairing), source, device=CPU))
    plain, ssql = (trainer.framework.state_dict() for trainer in trainers)
    assert all(torch.equal(tensor, ssql[name]) for name, tensor in plain.items())
    for trainer in trainers:
        assert len(list(trainer.train_epoch())) == 4
    assert torch.equal(*(trainer.streams["order"].get_state() for trainer in trainers))
    assert torch.equal(*(trainer.source.state_dict()["views"] for trainer in trainers))


@pytest.mark.parametrize(
    "fields",
    [
        {"pairing": "ssql"},
        {"framework": "simclr", "pairing": "cq-c", "optimizer": "lars", "schedule": "step"},
    ],
)
def test_a_run_killed_between_checkpoints_ends_in_the_same_bytes(tmp_path, monkeypatch, fields):
    recipe = _recipe(epochs=4, **fields)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    expected = run(recipe, whole)
    with monkeypatch.context() as patch, pytest.raises(_Killed):
        _kill_after(patch, 3)  # one epoch after the state of epoch 2
        run(recipe, cut)
    assert len(_lines(cut)) == 3 and (cut / "last.pth").is_file()
    with (cut / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "lo')  # a line cut short
    resumed = run(recipe, cut)
    assert resumed == expected
    assert (cut / "checkpoint.pth").read_bytes() == (whole / "checkpoint.pth").read_bytes()
    assert _lines(cut) == _lines(whole)


def test_a_run_killed_before_its_first_state_starts_over(tmp_path, monkeypatch):
    expected = run(_recipe(), tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    with monkeypatch.context() as patch, pytest.raises(_Killed):
        _kill_after(patch, 1)
        run(_recipe(), other)
    assert not (other / "last.pth").exists()
    assert run(_recipe(), other) == expected and len(_lines(other)) == 3


def test_a_finished_run_is_not_run_again(tmp_path, monkeypatch):
    expected = run(_recipe(), tmp_path)
    monkeypatch.setattr(Trainer, "train_epoch", lambda self: pytest.fail("trained again"))
    assert run(_recipe(checkpoint_every=7), tmp_path) == expected


def test_a_state_half_written_leaves_the_one_before(tmp_path, monkeypatch):
    save = torch.save
    calls = []

    def dying(content, file):
        calls.append(content)
        if len(calls) == 2:
            file.write(b"half")
            raise _Killed
        return save(content, file)

    monkeypatch.setattr(torch, "save", dying)
    with pytest.raises(_Killed):
        run(_recipe(checkpoint_every=1), tmp_path)
    assert torch.load(tmp_path / "last.pth", weights_only=True)["trainer"]["epoch"] == 1
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["last.pth", "metrics.jsonl", "tensorboard"]


def test_the_folder_of_another_recipe_is_refused(tmp_path):
    run(_recipe(epochs=1), tmp_path)
    with pytest.raises(ValueError, match="another job, which differs in lr; nothing was trained"):
        run(_recipe(epochs=1, lr=0.5), tmp_path)


@pytest.mark.parametrize(("epoch", "good"), [(1, "no state was saved before"), (2, "of epoch 2")])
def test_a_lost_loss_stops_the_run_and_names_the_step(tmp_path, monkeypatch, epoch, good):
    """The third step of an epoch gives NaN; what was saved before stays, nothing is saved after."""
    train_epoch = Trainer.train_epoch
    reached = []

    def poisoned(self):
        if self.epoch == epoch:
            calls = []

            def breaking(encoder, args):
                calls.append(1)
                if len(calls) == 2 * 2 + 1:  # two passes a step
                    args[0].fill_(float("nan"))

            self.framework.encoder.register_forward_pre_hook(breaking)
        reached.append(self.epoch)
        yield from train_epoch(self)

    monkeypatch.setattr(Trainer, "train_epoch", poisoned)
    with pytest.raises(FloatingPointError) as caught:
        run(_recipe(pairing="ssql", epochs=5), tmp_path)
    message = str(caught.value)
    assert "nan at step 3 of 4 (bits drawn: " in message and f"epoch {epoch + 1} of 5" in message
    assert "w" in message.split("bits drawn: ")[1].split(")")[0]
    assert good in message and "Lower lr" in message
    assert reached == list(range(epoch + 1)) and len(_lines(tmp_path)) == epoch
    assert not (tmp_path / "checkpoint.pth").exists()
    if epoch == 2:
        saved = torch.load(tmp_path / "last.pth", weights_only=True)["trainer"]
        assert saved["epoch"] == 2
        weights = saved["framework"].values()
        assert all(w.isfinite().all() for w in weights)


def test_weights_lost_in_the_last_step_of_an_epoch_are_not_saved(tmp_path, monkeypatch):
    train_epoch = Trainer.train_epoch

    def overflowing(self):
        if self.epoch == 1:
            step = self.optimizer.step
            calls = []

            def last(*args):
                step(*args)
                calls.append(1)
                if len(calls) == self.steps:
                    with torch.no_grad():
                        next(self.framework.parameters()).view(-1)[0] = float("inf")

            self.optimizer.step = last
        yield from train_epoch(self)

    monkeypatch.setattr(Trainer, "train_epoch", overflowing)
    with pytest.raises(FloatingPointError, match="weights became infinite or NaN at step 4 of 4"):
        run(_recipe(epochs=2), tmp_path)
    assert not (tmp_path / "last.pth").exists()


def test_a_learned_scale_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'lsq' learns its scales.*nothing was trained"):
        run(_recipe(pairing="cq-a", framework="simclr", policy="lsq"), tmp_path)


def test_a_batch_larger_than_the_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch of 2000 is larger than the 270 images"):
        run(_recipe(batch_size=2000), tmp_path)


def test_the_global_generator_is_left_as_it_was(tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    run(_recipe(epochs=1), tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_feature_std_is_one_when_spread_and_zero_when_collapsed():
    spread = torch.randn(4000, 64)
    assert feature_std(spread) == pytest.approx(1.0, abs=0.02)
    assert feature_std(spread[:1].expand(100, -1)) == pytest.approx(0.0, abs=1e-5)
    half = spread.clone()
    half[:, 32:] = 0  # half of the dimensions: 32 of 64 at std 1/sqrt(32)
    assert feature_std(half) == pytest.approx(0.5 * 2**0.5, abs=0.02)
