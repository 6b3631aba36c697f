"""Layouts of checkpoint files: where the tensors are and how their names are prefixed.

A project's layout is one line in `LAYOUTS`. Prefixes of distributed training and compilation
(`module.`, `_orig_mod.`) are removed first, so layouts omit them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lowbit.backbones.checkpoints.names import rename

_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")

# Name prefixes found only in full detectors of Detectron2, torchvision and mmdetection.
_DETECTOR = (
    "proposal_generator.",
    "roi_heads.",
    "rpn.",
    "rpn_head.",
    "roi_head.",
    "bbox_head.",
    "backbone.bottom_up.",
    "backbone.fpn",
    "backbone.body.",
    "head.cls_subnet.",
    "head.classification_head.",
)


@dataclass(frozen=True)
class Layout:
    """How a project stores a backbone.

    Attributes:
        name: shown in reports.
        prefix: precedes the backbone's tensor names.
        naming: a naming in `lowbit.backbones.checkpoints.names`.
        container: last part of the tensors' path in the file; "" matches any.
        caution: warning about what the file does not record.
    """

    name: str
    prefix: str = ""
    naming: str = "timm"
    container: str = ""
    caution: str = ""


# On ties the first layout wins: online networks come before layouts that match
# either network. DINO is the exception: its own evaluation loads the teacher.
LAYOUTS = (
    Layout("DINO, teacher", "backbone.", container="teacher"),
    Layout("DINO, student", "backbone.", container="student"),
    Layout("DINO, teacher", "teacher_backbone."),
    Layout("DINO, student", "student_backbone."),
    Layout("torchvision or timm"),
    Layout("torchvision MobileNetV2", naming="torchvision_mobilenetv2"),
    Layout("torchvision ViT", naming="torchvision_vit"),
    Layout(
        "Detectron2 ResNet",
        naming="detectron2",
        caution="a Detectron2 file does not show how its network was trained: the features are right "
        "only for RESNETS.STRIDE_IN_1X1 False and RGB images",
    ),
    Layout("CIFAR ResNet with .shortcut.", naming="shortcut"),
    Layout("nn.Sequential", naming="sequential"),
    Layout("MoCo or SSQL's baselines", "encoder_q."),
    Layout("SSQL", "encoder_q.model.", "norm_inside"),
    Layout("SSQL, linear or fine-tuned", "model.", "norm_inside"),
    Layout("MoCo v3", "base_encoder."),
    Layout("SimSiam or older solo-learn", "encoder."),
    Layout("SimSiam", "encoder.backbone."),
    Layout("BYOL", "online_encoder."),
    Layout("BYOL", "online_encoder.net."),
    Layout("BYOL", "online_network.encoder."),
    Layout("BYOL", "online_network.backbone."),
    Layout("BYOL", "online_network."),
    Layout("BYOL", "online_backbone."),
    Layout("BYOL, nn.Sequential", "encoder.", "sequential"),
    Layout("solo-learn, lightly or mmpretrain", "backbone."),
    Layout("lightly ViT", "backbone.vit."),
    Layout("lightly, nn.Sequential", "backbone.", "sequential"),
    Layout("lightly's own ResNet", "backbone.", "lightly_resnet"),
    Layout("mmpretrain MobileNetV2", "backbone.", "mmpretrain_mobilenetv2"),
    Layout("mmpretrain ViT", "backbone.", "mmpretrain_vit"),
    Layout("VISSL", "_feature_blocks."),
    Layout("VISSL", "trunk._feature_blocks."),
    Layout("VISSL", "base_model._feature_blocks."),
    Layout("a network inside another", "model."),
    Layout("a network inside another", "net."),
    Layout("a network inside another", "network."),
    Layout("a network inside another", "resnet."),
    Layout("a network inside another", "student."),
    Layout("a network inside another", "model.backbone."),
)


@dataclass(frozen=True)
class Match:
    """A network's tensors found in a file under one layout.

    Attributes:
        layout: the layout that finds the most tensors; None if none are found.
        found: our names -> tensors, of any shape.
        mismatched: found tensors of the wrong shape.
        missing: our names of tensors that were not found.
        extra: the file's names of tensors inside the backbone that the network lacks, such as the
            last blocks of a deeper one.
        unused: the file's names of all other tensors, `extra` included.
    """

    layout: Layout | None
    found: dict[str, Tensor]
    mismatched: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every tensor of the network and the file matches."""
        return not (self.mismatched or self.missing or self.extra)


def match(
    containers: Mapping[str, Mapping[str, Tensor]], wanted: Mapping[str, torch.Size]
) -> Match:
    """Find a network's tensors in a file under the best matching layout.

    Args:
        containers: of `lowbit.backbones.checkpoints.read_file.Contents`.
        wanted: our names -> shapes.
    """
    bare = {path: _unwrapped(tensors) for path, tensors in containers.items()}
    places = {path: {name.split(".")[0] for name in names} | {""} for path, names in bare.items()}
    best, found, where, score = None, {}, "", (0, 0)
    for layout in LAYOUTS:
        for path, names in bare.items():
            if layout.container and path.split(".")[-1] != layout.container:
                continue
            if layout.prefix.split(".")[0] not in places[path]:
                continue
            theirs = {k: layout.prefix + rename(layout.naming, k) for k in wanted}
            here = {k: containers[path][names[v]] for k, v in theirs.items() if v in names}
            points = (sum(t.shape == wanted[k] for k, t in here.items()), len(here))
            if points > score:
                best, found, where, score = layout, here, path, points
    missing = tuple(k for k in wanted if k not in found and not _optional(k))
    mismatched = tuple(k for k, t in found.items() if t.shape != wanted[k])
    used = {bare[where][best.prefix + rename(best.naming, k)] for k in found} if best else set()
    unused = tuple(
        name
        for path, tensors in containers.items()
        for name in tensors
        if path != where or name not in used
    )
    extra = _extra(bare[where], best, wanted, used) if best else ()
    return Match(best, found, mismatched, missing, extra, unused)


def detector_keys(containers: Mapping[str, Mapping[str, Tensor]]) -> tuple[str, ...]:
    """Return the tensor names that show a file is a full detector; empty if it is not."""
    names = (_WRAPPERS.sub("", name) for tensors in containers.values() for name in tensors)
    return tuple(name for name in names if name.startswith(_DETECTOR))


def _unwrapped(names: Iterable[str]) -> dict[str, str]:
    return {_WRAPPERS.sub("", name): name for name in names}


def _optional(name: str) -> bool:
    """Whether a tensor may be missing: files of older PyTorch versions lack batch norm's counter."""
    return name.endswith("num_batches_tracked")


def _extra(
    names: Mapping[str, str], layout: Layout, wanted: Iterable[str], used: set[str]
) -> tuple[str, ...]:
    """Return file tensors inside the backbone's modules that the network does not have.

    A ResNet-34's file holds every tensor of a ResNet-18: without this, it would load as one.
    """
    theirs = [rename(layout.naming, k) for k in wanted]
    modules = {name.split(".")[0] for name in theirs}
    leaves = {name.split(".")[-1] for name in theirs} | {"bias", "gamma"}
    return tuple(
        file_name
        for name, file_name in names.items()
        if file_name not in used
        and name.startswith(layout.prefix)
        and (inner := name.removeprefix(layout.prefix)).split(".")[0] in modules
        and inner.split(".")[-1] in leaves
        and "quant" not in inner  # quantizer state
        and not _optional(inner)
    )
