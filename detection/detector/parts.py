"""Access the parts of a detector of any engine: network, neck, head."""

from torch import nn


def bottom_up(detector: nn.Module) -> nn.Module:
    """Return the network inside a detector."""
    return body(detector).network


def body(detector: nn.Module) -> nn.Module:
    """Return the module around the network: in a pyramid, or the whole backbone."""
    return getattr(detector.backbone, "bottom_up", detector.backbone)


def head(detector: nn.Module) -> nn.ModuleDict:
    """Return the modules after the pyramid, by their names in the detector."""
    rest = {n: m for n, m in detector.named_children() if n not in ("backbone", "transform")}
    return nn.ModuleDict(rest)


def neck(detector: nn.Module) -> nn.ModuleDict:
    """Return the pyramid's modules by role, each from fine to coarse; empty without a pyramid."""
    backbone = detector.backbone
    if hasattr(backbone, "aggregation"):  # YOLOv4's
        return nn.ModuleDict(dict(backbone.aggregation.named_children()))
    if hasattr(backbone, "lateral_convs"):  # Detectron2's FPN, which starts with the coarsest
        lateral, output = backbone.lateral_convs[::-1], backbone.output_convs[::-1]
        added = backbone.top_block
    elif hasattr(backbone, "fpn"):  # torchvision's: each in a sequence with its norm
        lateral = [block[0] for block in backbone.fpn.inner_blocks]
        output = [block[0] for block in backbone.fpn.layer_blocks]
        added = backbone.fpn.extra_blocks
    else:
        return nn.ModuleDict()
    found = nn.ModuleDict({"lateral": nn.ModuleList(lateral), "output": nn.ModuleList(output)})
    if added is not None:
        found["added"] = added
    return found
