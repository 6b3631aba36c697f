#!/usr/bin/env bash
# timm's conversion of DINOv3 files leaves out biases that are not zero, and says so by printing an exception.
#
# Guess:    a conversion that cannot place a tensor refuses, or warns; at least it looks whether the biases that
#           its network lacks are zero, as the published ones are said to be.
# Observed: timm 1.0.31. `timm.models.eva.checkpoint_filter_fn` for vit_small_patch16_dinov3, given the official
#           names with biases of 1 in the queries, keys and values: these are gone, nothing is raised or warned
#           of, and standard output has one line for each block (12), "`q_bias` is not an nn.Parameter".
#           The network then loads strictly; with vit_small_patch16_dinov3_qkvb, which has these biases, its
#           features differ. Fine-tuned or newly trained DINOv3 checkpoints have such biases.
# So:       compare what a conversion was given with what it returned before loading it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1 torchvision==0.29.1 timm==1.0.31
cat > "$folder/try.py" <<'PYTHON'
import contextlib
import io
import sys
import warnings

import timm
import torch
from timm.models.eva import checkpoint_filter_fn

torch.manual_seed(0)
plain = timm.create_model("vit_small_patch16_dinov3", num_classes=0).eval()
biased = timm.create_model("vit_small_patch16_dinov3_qkvb", num_classes=0).eval()
official = {}
for name, tensor in plain.state_dict().items():
    tensor = torch.ones_like(tensor) if "gamma" in name else tensor  # as after training, not 1e-5
    name = name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
    official[name.replace("reg_token", "storage_tokens")] = tensor
for block in range(12):
    official[f"blocks.{block}.attn.qkv.bias"] = torch.ones(3 * 384)
printed = io.StringIO()
with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(printed):
    warnings.simplefilter("always")
    found = checkpoint_filter_fn(dict(official), plain)
    other = checkpoint_filter_fn(dict(official), biased)
lines = [line for line in printed.getvalue().splitlines() if line.strip()]
print(f"biases left: {sum('bias' in n and 'qkv' in n for n in found)}; warnings: {len(caught)}; lines printed: {len(lines)}")
print(lines[0])
plain.load_state_dict(found, strict=True)
biased.load_state_dict(other, strict=True)
images = torch.randn(1, 3, 224, 224)
with torch.no_grad():
    difference = (plain(images) - biased(images)).abs().max().item()
print(f"features differ by up to {difference:.3f}")
same = len(lines) == 12 and not caught and difference > 1e-3
same = same and not any("qkv.bias" in n or "q_bias" in n for n in found)
sys.exit(0 if same else "changed")
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
