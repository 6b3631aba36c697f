"""The head of a C4 detector, which runs our network's last stage on every region. Needs Detectron2.

Importing this module registers the heads. Detectron2's own uses the stage of its ResNet, which has
bottleneck blocks and its own names; this one uses the stage of any ResNet of `backbones`, and its
weights come from a backbone file (`lowbit.detection.detector.initial_weights.initialize`).
"""

from collections import OrderedDict

from detectron2.layers import get_norm
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads import Res5ROIHeads
from torch import nn

from lowbit.detection.detector.pyramid_levels import select_levels
from lowbit.detection.with_detectron2.backbone import network_from


@ROI_HEADS_REGISTRY.register()
class LowbitRes5ROIHeads(Res5ROIHeads):
    """Res5ROIHeads with stage res5 of `MODEL.LOWBIT.ARCHITECTURE`; boxes, and optionally masks."""

    @classmethod
    def _build_res5_block(cls, cfg) -> tuple[nn.Sequential, int]:
        """Return the stage and its channels.

        Raises:
            ValueError: the backbone runs res5 too, or the network's last stage is not one module.
        """
        if list(cfg.MODEL.LOWBIT.OUT_FEATURES) != ["res4"]:
            raise ValueError(
                f"MODEL.LOWBIT.OUT_FEATURES is {list(cfg.MODEL.LOWBIT.OUT_FEATURES)}; no detector was "
                f"built. {cls.__name__} runs res5 on regions of res4: set it to [res4]."
            )
        network = network_from(cfg, last="res5")
        level = select_levels(network, ("res5",))[0]
        stage = getattr(network, level.module, None)
        if not isinstance(stage, nn.Sequential):
            raise ValueError(
                f"stage res5 of {cfg.MODEL.LOWBIT.ARCHITECTURE} ends at {level.module}, which is not a "
                "sequence of blocks of its own; no detector was built. Use a ResNet, or the FPN "
                "backbones, which take any network."
            )
        return stage, level.channels


@ROI_HEADS_REGISTRY.register()
class LowbitRes5ROIHeadsExtraNorm(LowbitRes5ROIHeads):
    """The same with a norm after the stage, as in MoCo's transfer to C4 (He et al. 2020).

    If all norms are trained, the scale of the head's input features is otherwise unbounded.
    """

    @classmethod
    def _build_res5_block(cls, cfg) -> tuple[nn.Sequential, int]:
        norm = cfg.MODEL.LOWBIT.NORM
        if norm == "FrozenBN":
            raise ValueError(
                f"{cls.__name__} has a norm that is in no backbone file, so MODEL.LOWBIT.NORM FrozenBN "
                "would leave it without effect; no detector was built. Use BN or SyncBN, or "
                "MODEL.ROI_HEADS.NAME LowbitRes5ROIHeads."
            )
        stage, channels = super()._build_res5_block(cfg)
        blocks = OrderedDict(stage.named_children())
        return nn.Sequential(blocks | {"norm": get_norm(norm, channels)}), channels
