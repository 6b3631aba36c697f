"""Register our networks in Detectron2's BACKBONE_REGISTRY: plain, with FPN, RetinaNet's, YOLOv4's neck.

Importing this module registers them; it needs Detectron2. Any network with a feature pyramid becomes
a Detectron2 `Backbone` that keeps its parameter names, wrapped in Detectron2's FPN, so one weight
file can be used for classification and detection.
"""

from collections import OrderedDict
from functools import partial

from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, ROI_HEADS_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.roi_heads import Res5ROIHeads
from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.backbones import pyramid
from lowbit.detection.detector.frozen_stages import build_network
from lowbit.detection.detector.pyramid_levels import select_levels
from lowbit.detection.yolov4.path_aggregation import PathAggregation


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

    With OUT_FEATURES [res4] it is for a C4 detector, whose res5 is in `LowbitRes5ROIHeads`.
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


class AggregatedLowbitBackbone(Backbone):
    """A network with YOLOv4's neck as a Detectron2 `Backbone`.

    Args:
        bottom_up: returns three stages, from fine to coarse.
        aggregation: the neck on these.
        channels: of its levels.
    """

    def __init__(
        self, bottom_up: LowbitBackbone, aggregation: PathAggregation, channels: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.bottom_up = bottom_up
        self.aggregation = aggregation
        strides = [shape.stride for shape in bottom_up.output_shape().values()]
        names = [f"p{stride.bit_length() - 1}" for stride in strides]
        self._out_features = names
        self._out_feature_channels = dict(zip(names, channels, strict=True))
        self._out_feature_strides = dict(zip(names, strides, strict=True))

    @property
    def size_divisibility(self) -> int:
        return max(self._out_feature_strides.values())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        levels = self.aggregation(list(self.bottom_up(x).values()))
        return dict(zip(self._out_features, levels, strict=True))


@BACKBONE_REGISTRY.register()
def build_lowbit_yolov4_backbone(
    cfg, input_shape: ShapeSpec | None = None
) -> AggregatedLowbitBackbone:
    """Build the network with YOLOv4's neck, `MODEL.FPN.OUT_CHANNELS` wide at its finest level."""
    bottom_up = build_lowbit_backbone(cfg, input_shape)
    channels, norm = cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.FPN.NORM
    aggregation = PathAggregation(
        [shape.channels for shape in bottom_up.output_shape().values()],
        channels=channels,
        norm=partial(get_norm, norm) if norm else None,
        relu=cfg.MODEL.LOWBIT.FPN_RELU,
    )
    return AggregatedLowbitBackbone(bottom_up, aggregation, (channels, 2 * channels, 4 * channels))


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


# Detectron2's own C4 head takes its stage from its ResNet, which has bottleneck blocks and its own names;
# this one is the stage of any ResNet of `lowbit.backbones`, and a backbone file fills it
# (`lowbit.detection.detector.initial_weights.initialize`).
@ROI_HEADS_REGISTRY.register()
class LowbitRes5ROIHeads(Res5ROIHeads):
    """Res5ROIHeads around stage res5 of `MODEL.LOWBIT.ARCHITECTURE`; boxes, and masks if asked."""

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
    """The same with one more norm behind the stage, as MoCo transfers to C4 (He et al. 2020).

    Where all norms are trained, a detector's head otherwise gets features whose scale nothing holds.
    """

    @classmethod
    def _build_res5_block(cls, cfg) -> tuple[nn.Sequential, int]:
        norm = cfg.MODEL.LOWBIT.NORM
        if norm == "FrozenBN":
            raise ValueError(
                f"{cls.__name__} has a norm that no backbone file fills, so MODEL.LOWBIT.NORM FrozenBN "
                "would leave it without effect; no detector was built. Use BN or SyncBN, or "
                "MODEL.ROI_HEADS.NAME LowbitRes5ROIHeads."
            )
        stage, channels = super()._build_res5_block(cfg)
        blocks = OrderedDict(stage.named_children())
        return nn.Sequential(blocks | {"norm": get_norm(norm, channels)}), channels
