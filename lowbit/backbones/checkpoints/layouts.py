"""The layouts of checkpoint files: where the tensors are and which prefixes their names have.

A project's layout is one line in `LAYOUTS`. Prefixes of distributed training and compilation
(`module.`, `_orig_mod.`) are removed first, so that no line needs them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lowbit.backbones.checkpoints.names import rename

_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")

# What only a whole detector has: Detectron2, torchvision and mmdetection.
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
    """How a project writes a backbone.

    Attributes:
        name: as reports print it.
        prefix: before the backbone's own names.
        naming: of `lowbit.backbones.checkpoints.names`.
        container: last part of the place in the file; "" is any.
        caution: what the file does not show and the user must know.
    """

    name: str
    prefix: str = ""
    naming: str = "timm"
    container: str = ""
    caution: str = ""


# Where two match as well as each other, the first is taken: online networks stand before what holds
# either. DINO is the exception: its product is the teacher, which its own evaluation loads.
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
    """A network's tensors as one layout finds them in a file.

    Attributes:
        layout: the one under which most is found; None when nothing is.
        found: our names -> tensors, of whatever shape.
        mismatched: those of another shape.
        missing: our names of what is not there.
        extra: the file's names of tensors inside the backbone that the network lacks, such as the
            last blocks of a deeper one.
        unused: the file's names of all that was not found, `extra` included.
    """

    layout: Layout | None
    found: dict[str, Tensor]
    mismatched: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether network and file agree, tensor for tensor."""
        return not (self.mismatched or self.missing or self.extra)


def match(
    containers: Mapping[str, Mapping[str, Tensor]], wanted: Mapping[str, torch.Size]
) -> Match:
    """Find a network's tensors in a file, under the layout that finds most of them.

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
    """Return the names by which a file is a whole detector; none if it is not."""
    names = (_WRAPPERS.sub("", name) for tensors in containers.values() for name in tensors)
    return tuple(name for name in names if name.startswith(_DETECTOR))


def _unwrapped(names: Iterable[str]) -> dict[str, str]:
    return {_WRAPPERS.sub("", name): name for name in names}


def _optional(name: str) -> bool:
    """Files from before batch normalization counted its batches lack that counter."""
    return name.endswith("num_batches_tracked")


def _extra(
    names: Mapping[str, str], layout: Layout, wanted: Iterable[str], used: set[str]
) -> tuple[str, ...]:
    """Return what lies inside the modules of the backbone, looks like its tensors, and is no part.

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
        and "quant" not in inner  # a quantizer's own state
        and not _optional(inner)
    )
