#!/usr/bin/env bash
# torchvision builds no Swin Transformer and no ConvNeXt that has one block in all.
#
# Guess:    the smallest network of a family, one stage of one block, is built like any other: a quick test's
#           network. Without stochastic depth there is nothing to spread over the blocks.
# Observed: torchvision 0.29.1. SwinTransformer(depths=[1]) and ConvNeXt with one block end in ZeroDivisionError,
#           with stochastic depth left at 0 too: the rate of a block is computed by dividing by the number of
#           blocks less one. depths=[1, 1] and [2] work, and so do MaxVit and EfficientNet of one block.
# So:       test networks need two blocks; a search over depths starts at two.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1 torchvision==0.29.1
cat > "$folder/try.py" <<'PYTHON'
import sys

import torch
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.efficientnet import EfficientNet, MBConvConfig
from torchvision.models.maxvit import MaxVit
from torchvision.models.swin_transformer import SwinTransformer


def swin(*depths):
    heads = [2 * 2**stage for stage in range(len(depths))]
    return SwinTransformer(
        patch_size=[4, 4], embed_dim=24, depths=list(depths), num_heads=heads, window_size=[4, 4],
        stochastic_depth_prob=0.0, num_classes=3,
    )  # fmt: skip


def convnext(blocks):
    return ConvNeXt([CNBlockConfig(24, None, blocks)], stochastic_depth_prob=0.0, num_classes=3)


def maxvit():
    return MaxVit(
        input_size=(32, 32), stem_channels=8, partition_size=1, block_channels=[8], block_layers=[1],
        head_dim=8, stochastic_depth_prob=0.0, num_classes=3,
    )  # fmt: skip


def efficientnet():
    return EfficientNet(
        [MBConvConfig(1, 3, 1, 8, 8, 1)], dropout=0.0, stochastic_depth_prob=0.0, num_classes=3
    )


def outcome(build):
    try:
        return tuple(build().eval()(torch.zeros(1, 3, 32, 32)).shape)
    except ZeroDivisionError as error:
        return type(error).__name__


got = {
    "Swin, depths [1]": outcome(lambda: swin(1)),
    "Swin, depths [2]": outcome(lambda: swin(2)),
    "Swin, depths [1, 1]": outcome(lambda: swin(1, 1)),
    "ConvNeXt, 1 block": outcome(lambda: convnext(1)),
    "ConvNeXt, 2 blocks": outcome(lambda: convnext(2)),
    "MaxVit, 1 block": outcome(maxvit),
    "EfficientNet, 1 block": outcome(efficientnet),
}
for name, value in got.items():
    print(f"{name}: {value}")
expected = dict.fromkeys(got, (1, 3))
expected["Swin, depths [1]"] = expected["ConvNeXt, 1 block"] = "ZeroDivisionError"
sys.exit("not as observed" if got != expected else 0)
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
