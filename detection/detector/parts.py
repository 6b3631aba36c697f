"""The parts of a detector, with the same names for every engine: network, neck, head."""

from torch import nn


def bottom_up(detector: nn.Module) -> nn.Module:
    """Return the network inside a detector."""
    return body(detector).network


def body(detector: nn.Module) -> nn.Module:
    """Return the module around the network: in a pyramid, or the whole backbone."""
    return getattr(detector.backbone, "bottom_up", detector.backbone)


def head(detector: nn.Module) -> nn.ModuleDict:
    """Return what follows the pyramid, by its names in the detector."""
    rest = {n: m for n, m in detector.named_children() if n not in ("backbone", "transform")}
    return nn.ModuleDict(rest)


def neck(detector: nn.Module) -> nn.ModuleDict:
    """Return the pyramid's convolutions by role, from fine to coarse; nothing without a pyramid."""
    backbone = detector.backbone
    if hasattr(backbone, "lateral_convs"):  # Detectron2's FPN, which lists them from the coarsest
        lateral, output = backbone.lateral_convs[::-1], backbone.output_convs[::-1]
        added = backbone.top_block
    elif hasattr(backbone, "fpn"):  # torchvision's, each with its norm in a sequence
        lateral = [block[0] for block in backbone.fpn.inner_blocks]
        output = [block[0] for block in backbone.fpn.layer_blocks]
        added = backbone.fpn.extra_blocks
    else:
        return nn.ModuleDict()
    found = nn.ModuleDict({"lateral": nn.ModuleList(lateral), "output": nn.ModuleList(output)})
    if added is not None:
        found["added"] = added
    return found
