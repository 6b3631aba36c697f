"""Dynamic teacher selection: a confident and close higher bit-width (CoQuant Eq. 4).

t = argmin over b' > b in B of  C(y_b') + λ Dist(b', b).  The paper's supplement names the two terms and
λ, not their formulas; SPEC D.2 settles on entropy and the l2 distance, with the alternatives below.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.quant.convert import quantized_layers
from lowbit.quant.policies.rule import TARGET
from lowbit.quant.quantizers.base import Quantizer


def _entropy(y: Tensor, labels: Tensor) -> Tensor:
    log_p = F.log_softmax(y, dim=1)
    return -(log_p.exp() * log_p).sum(1).mean()


def _max_probability(y: Tensor, labels: Tensor) -> Tensor:
    return 1 - F.softmax(y, dim=1).amax(1).mean()


CONFIDENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "entropy": _entropy,
    "max-probability": _max_probability,
    "cross-entropy": F.cross_entropy,
}
"""Map logits (N, C) and labels (N,) to a batch mean that is low for confident predictions."""

DISTANCES = ("l2", "mean-squared", "bits")


@torch.no_grad()
def model_distances(model: nn.Module, bits: Sequence[int], *, kind: str) -> Tensor:
    """Return Dist(b', b) between the quantized weights at every two of `bits`, (B, B).

    `l2`: Σ over layers of ‖Q_b'(w) - Q_b(w)‖₂, of the values, not the codes. `mean-squared`: the mean of
    (Q_b'(w) - Q_b(w))² over all weights. `bits`: |b' - b|. A layer whose bits are fixed adds nothing to
    the distance.
    """
    layers = quantized_layers(model).values()
    device = next(model.parameters()).device
    if kind == "bits":
        widths = torch.tensor(bits, device=device, dtype=torch.float32)
        return (widths[:, None] - widths).abs()
    targets = [layer for layer in layers if layer.rule.weight == TARGET]
    squares = torch.stack([_squares(layer.w_quant, layer.weight, bits) for layer in targets])
    if kind == "l2":
        return squares.sqrt().sum(0)
    return squares.sum(0) / sum(layer.weight.numel() for layer in targets)


def _squares(quantizer: Quantizer, weight: Tensor, bits: Sequence[int]) -> Tensor:
    """Return ‖Q_b'(w) - Q_b(w)‖² for every two of `bits`, (B, B)."""
    before = quantizer.bits
    if quantizer.has_nested_codes and max(bits) <= 8:
        found = _squares_of_nested(quantizer, weight, bits)
    else:
        values = [_at(quantizer, weight, b) for b in bits]
        found = torch.stack([torch.stack([(u - v).square().sum() for u in values]) for v in values])
    quantizer.bits = before
    return found


def _at(quantizer: Quantizer, weight: Tensor, bits: int) -> Tensor:
    quantizer.bits = bits
    return quantizer(weight)


def _squares_of_nested(quantizer: Quantizer, weight: Tensor, bits: Sequence[int]) -> Tensor:
    """Compute the same from the histogram of the highest bit-width's codes, which fixes the others."""
    top = quantizer.bits = max(bits)
    counts = _counts(quantizer.codes(weight), 2**top)
    codes = torch.arange(2**top, device=weight.device)
    values = []
    for b in bits:
        quantizer.bits = b
        step, offset = quantizer.grid(weight)
        values.append((codes >> (top - b)) * step + offset)
    table = torch.stack(values)  # (B, 2^top)
    return ((table[:, None] - table).square() * counts).sum(2)


def _counts(codes: Tensor, n: int) -> Tensor:
    if codes.device.type == "cpu":
        return torch.bincount(codes.flatten(), minlength=n)
    return torch.histc(codes.float(), bins=n, min=0, max=n)  # bincount would wait for the device


class Choice:
    """Index of the smallest score, copied from the device asynchronously.

    Create it before queueing more work and read it after: on a GPU the copy then overlaps that work.
    """

    def __init__(self, scores: Tensor) -> None:
        index = scores.argmin()
        self._ready = None
        if index.device.type == "cuda":
            kept = torch.empty((), dtype=index.dtype, pin_memory=True)
            self._index = kept.copy_(index, non_blocking=True)
            self._ready = torch.cuda.Event()
            self._ready.record()
        else:
            self._index = index

    def get(self) -> int:
        """Return the index."""
        if self._ready is not None:
            self._ready.synchronize()
        return int(self._index)
