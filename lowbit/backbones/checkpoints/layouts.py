"""Layouts of checkpoint files: where the tensors are and how their names are prefixed.

A project's layout is one line in `LAYOUTS`. Wrappers of distributed training and compilation are
removed before (`lowbit.backbones.checkpoints.bare_names`), so layouts omit them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
    Layout("DINOv2, teacher", "teacher.backbone."),
    Layout("DINOv2, student", "student.backbone."),
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


def detector_keys(containers: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Return the tensor names that show a file is a full detector; empty if it is not."""
    names = (name for tensors in containers.values() for name in tensors)
    return tuple(name for name in names if name.startswith(_DETECTOR))
