"""Attention as plain matrix products, for counting what a network computes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Within the block, compute QKᵀ and AV as two matrix products, on any device.

    Fused kernels do both in one call. `FlopCounterMode` has no formula for those of a CPU, nor for
    the fast path of `nn.MultiheadAttention` and `nn.TransformerEncoderLayer`: it misses 14 % of a
    ViT-Ti/16 at 224 pixels, and all of such a layer.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
