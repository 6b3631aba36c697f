#!/usr/bin/env bash
# PyTorch's FLOP counter leaves attention out on a CPU, and sees nothing at all of nn.MultiheadAttention.
#
# Guess:    torch.utils.flop_counter counts what a network computes, so the same network has the same count on
#           a CPU and on the meta device, and in train and eval mode alike.
# Observed: with torch 2.14.1, scaled_dot_product_attention on 64 tokens of 32 channels counts 524,288 FLOPs on
#           the meta device and 0 on a CPU: the CPU's fused kernel has no formula, and nothing warns.
#           nn.MultiheadAttention in eval mode without gradients counts 0 on a CPU, projections and all,
#           because its fast path is one operation without a formula; in train mode its projections are
#           counted, and with the fused kernel and the fast path off all of it is, as on the meta device.
# So:       count on the meta device, or with sdpa_kernel(MATH) and torch.backends.mha's fast path off.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1
cat > "$folder/count.py" <<'PYTHON'
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as attention
from torch.utils.flop_counter import FlopCounterMode

TOKENS, WIDTH = 64, 32


def flops(function):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def product(device):
    q = torch.ones(1, 2, TOKENS, WIDTH // 2, device=device)
    return flops(lambda: attention(q, q, q))


def module(device, *, training=False):
    net = torch.nn.MultiheadAttention(WIDTH, 2, batch_first=True, device=device).train(training)
    x = torch.ones(1, TOKENS, WIDTH, device=device)
    return flops(lambda: net(x, x, x, need_weights=False))


both = 2 * 2 * TOKENS**2 * WIDTH  # two products, a multiply-add counts as two
whole = both + 2 * 4 * TOKENS * WIDTH**2  # and four projections
got = {
    "attention, meta": product("meta"),
    "attention, CPU": product("cpu"),
    "module in eval mode, meta": module("meta"),
    "module in eval mode, CPU": module("cpu"),
    "module in train mode, CPU": module("cpu", training=True),
}
torch.backends.mha.set_fastpath_enabled(False)
with sdpa_kernel(SDPBackend.MATH):
    got["module in eval mode, CPU, nothing fused"] = module("cpu")
expected = {
    "attention, meta": both,
    "attention, CPU": 0,
    "module in eval mode, meta": whole,
    "module in eval mode, CPU": 0,
    "module in train mode, CPU": whole - both,
    "module in eval mode, CPU, nothing fused": whole,
}
for name, value in got.items():
    print(f"{name}: {value}")
sys.exit(f"not as observed: {expected}" if got != expected else 0)
PYTHON
"$folder/venv/bin/python" "$folder/count.py"
