"""Register our networks in Detectron2's BACKBONE_REGISTRY: plain, with FPN, with RetinaNet's FPN.

Importing this module registers them; it needs Detectron2. Any network with a feature pyramid becomes
a Detectron2 `Backbone` that keeps its parameter names, wrapped in Detectron2's FPN, so one weight
file can be used for classification and detection.
"""

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.backbones import pyramid
from lowbit.detection.detector.frozen_stages import build_network
from lowbit.detection.detector.pyramid_levels import select_levels


class LowbitBackbone(Backbone):
    """A network of `backbones` as a Detectron2 `Backbone`; it may be quantized before or after wrapping.

    Args:
        network: from `create_backbone`, stored as `network`.
        out_features: stages to return, from fine to coarse; later stages are not computed.
    """

    def __init__(self, network: nn.Module, out_features: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        levels = select_levels(network, out_features)
        self._out_features = list(out_features)
        self._out_feature_channels = {level.name: level.channels for level in levels}
        self._out_feature_strides = {level.name: level.stride for level in levels}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return pyramid(self.network, x, self._out_features)


class LowbitFPN(FPN):
    """Detectron2's pyramid with a ReLU on every level, so that the heads' inputs are non-negative (TR)."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: F.relu(output) for name, output in super().forward(x).items()}


def network_from(cfg, *, last: str) -> nn.Module:
    """Build `MODEL.LOWBIT.ARCHITECTURE` up to stage `last`, with the configured norms and frozen stages."""
    return build_network(
        cfg.MODEL.LOWBIT.ARCHITECTURE,
        norm=cfg.MODEL.LOWBIT.NORM,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        last=last,
    )


@BACKBONE_REGISTRY.register()
def build_lowbit_backbone(cfg, input_shape: ShapeSpec | None = None) -> LowbitBackbone:
    """Build the network with random weights; the trainer loads the weights strictly.

    With OUT_FEATURES [res4] it is for a C4 detector, whose res5 is in `lowbit.detection.with_detectron2.roi_heads`.
    """
    features = tuple(cfg.MODEL.LOWBIT.OUT_FEATURES)
    return LowbitBackbone(network_from(cfg, last=features[-1]), features)


@BACKBONE_REGISTRY.register()
def build_lowbit_fpn_backbone(cfg, input_shape: ShapeSpec | None = None) -> FPN:
    """Build the network with Detectron2's FPN and one more level, pooled from the last."""
    bottom_up = build_lowbit_backbone(cfg, input_shape)
    top = LastLevelMaxPool()
    coarsest = bottom_up.output_shape()[cfg.MODEL.FPN.IN_FEATURES[-1]].stride
    top.in_feature = f"p{coarsest.bit_length() - 1}"  # Detectron2 uses p5, the level of stride 32
    return _fpn(cfg, bottom_up, top)


@BACKBONE_REGISTRY.register()
def build_retinanet_lowbit_fpn_backbone(cfg, input_shape: ShapeSpec | None = None) -> FPN:
    """Build the network with Detectron2's FPN; `MODEL.LOWBIT.EXTRA_LEVELS` adds RetinaNet's two."""
    bottom_up = build_lowbit_backbone(cfg, input_shape)
    top = None
    if cfg.MODEL.LOWBIT.EXTRA_LEVELS:
        last = cfg.MODEL.FPN.IN_FEATURES[-1]
        channels = bottom_up.output_shape()[last].channels
        top = LastLevelP6P7(channels, cfg.MODEL.FPN.OUT_CHANNELS, last)
    return _fpn(cfg, bottom_up, top)


def _fpn(cfg, bottom_up: LowbitBackbone, top: nn.Module | None) -> FPN:
    kind = LowbitFPN if cfg.MODEL.LOWBIT.FPN_RELU else FPN
    return kind(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
