"""Read the classifier stored with a backbone in a checkpoint."""

import re
from pathlib import Path

import torch
from torch import Tensor

from lowbit.backbones import CheckpointError
from lowbit.backbones.checkpoints.load_report import is_fit, shortened
from lowbit.backbones.checkpoints.read_file import read

# torchvision: fc, classifier.N, heads.head; timm: fc, classifier, head, head.fc; ours: fc.
_CLASSIFIER = re.compile(r"^(\w+\.)?(fc|classifier(\.\d)?|head(\.fc)?)\.weight$")


def stored_classifier(
    path: str | Path, *, num_features: int, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Return the weight (C, D) and bias (C,) of the classifier in a file, the online network's first.

    Raises:
        FileNotFoundError: the file does not exist.
        CheckpointError: the file has no classifier of that shape.
    """
    wanted, others = (num_classes, num_features), []
    for tensors in read(path).containers.values():
        for name, weight in tensors.items():
            if not _CLASSIFIER.match(name):
                continue
            bias = tensors.get(name.removesuffix("weight") + "bias", torch.zeros(num_classes))
            fits = tuple(weight.shape) == wanted and bias.shape == (num_classes,)
            if fits and is_fit(weight) and is_fit(bias):
                return weight.to(torch.float32, copy=True), bias.to(torch.float32, copy=True)
            others.append(f"{name} {tuple(weight.shape)}")
    found = f"has {shortened(others)}" if others else "has none (fc, classifier or head)"
    raise CheckpointError(
        f"{path} {found}, not the classifier {wanted} of {num_classes} classes on {num_features} "
        "features; nothing was trained. Give a file with that classifier, or start from fp_start "
        "or warmup_fc instead of checkpoint_head."
    )
