"""Distillation: the divergence in closed form, and a teacher that comes from a file and stays."""

import math

import pytest
import torch
from torch import nn

from lowbit.backbones import CheckpointError, create_backbone, save_backbone
from lowbit.transfer.finetuning.distillation import Distilled, divergence, load_teacher
from lowbit.transfer.finetuning.training import Network
from lowbit.transfer.recipe.sections import Distillation

CPU = torch.device("cpu")


def test_divergence_by_hand():
    taught = torch.tensor([[math.log(3.0), 0.0]])  # 3/4, 1/4
    logits = torch.tensor([[0.0, 0.0]])
    by_hand = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert divergence(taught, logits).item() == pytest.approx(by_hand, rel=1e-6)
    hot = taught * 2  # at T = 2 the same two distributions
    assert divergence(hot, logits, 2.0).item() == pytest.approx(4 * by_hand, rel=1e-6)
    assert divergence(taught, taught + 5).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 1.0), (0.3, 2.0)])
def test_the_gradient_is_the_known_one_and_the_teacher_learns_nothing(weight, temperature):
    torch.manual_seed(0)
    teacher, student = nn.Linear(4, 3), nn.Linear(4, 3)
    x, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    section = Distillation(teacher="t.pth", weight=weight, temperature=temperature)
    objective = Distilled(teacher, section)
    loss = objective(student, x, y, step=0, total_steps=1, backward=torch.Tensor.backward)

    with torch.no_grad():
        z, t = student(x).double(), teacher(x).double()
        p, q = (z / temperature).softmax(1), (t / temperature).softmax(1)
        kl = (q * (q / p).log()).sum(1).mean() * temperature**2
        ce = -z.log_softmax(1)[torch.arange(5), y].mean()
        hard = z.softmax(1) - torch.eye(3, dtype=torch.float64)[y]
        # d KL(q || softmax(z / T)) / dz = (p - q) / T
        residual = (weight * temperature * (p - q) + (1 - weight) * hard) / 5
    assert loss.item() == pytest.approx((weight * kl + (1 - weight) * ce).item(), rel=1e-5)
    assert torch.allclose(student.weight.grad.double(), residual.mT @ x.double(), atol=1e-6)
    assert teacher.weight.grad is None and not loss.requires_grad


def test_a_teacher_is_a_file_with_backbone_and_classifier(tmp_path):
    backbone = create_backbone("resnet10_slim")
    network = Network(backbone, torch.randn(10, 128), torch.randn(10)).eval()
    torch.save({"network": network.state_dict()}, tmp_path / "t.pth")  # as a fine-tuning leaves it
    section = Distillation(teacher=str(tmp_path / "t.pth"), architecture="resnet10_slim")
    teacher, facts = load_teacher(section, num_classes=10, frames=None, device=CPU)
    x = torch.randn(2, 3, 32, 32)
    assert teacher(x).equal(network(x)) and not teacher(x).requires_grad
    assert facts["architecture"] == "resnet10_slim" and len(facts["sha256"]) == 64


def test_a_backbone_alone_is_no_teacher(tmp_path):
    save_backbone(tmp_path / "t.pth", create_backbone("resnet10_slim"), {"method": "-"})
    section = Distillation(teacher=str(tmp_path / "t.pth"))
    with pytest.raises(CheckpointError, match="has none"):
        load_teacher(section, num_classes=10, frames=None, device=CPU)
