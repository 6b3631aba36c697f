"""Observers, which find a min-max quantizer's range from batches of activations.

An observer is used during calibration. Its result is a range for each bit-width (the same for
all, except with `mse`), merged over the processes of a distributed run, so that ranks agree.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from lowbit.quant.precision import MAX_BITS
from lowbit.quant.quantizers.base import one_of

OBSERVERS = ("minmax", "moving_average", "percentile", "mse")
BINS = 2048
CANDIDATES = 100  # ranges that `mse` tries


class Observer:
    """Collect a range over batches.

    Args:
        kind: "minmax": smallest and largest value of all batches (SSQL); "moving_average": an
            exponential average over batches; "percentile": the range that excludes (100 - percentile) % of
            the values, in equal parts below and above (none below if all are positive);
            "mse": the shrunken min-max range whose affine grid has the least squared error, which
            depends on the bit-width.
        momentum: weight of the past in a moving average.
        percentile: share kept, in percent.
    """

    def __init__(self, kind: str, *, momentum: float = 0.9, percentile: float = 99.99) -> None:
        one_of("observer", kind, OBSERVERS)
        if not 50 < percentile <= 100:
            raise ValueError(
                f"percentile {percentile} is too small; no quantizer was made. Use a number above "
                "50 and up to 100."
            )
        self.kind, self.momentum, self.percentile = kind, momentum, percentile
        self.low: Tensor | None = None
        self.high: Tensor | None = None
        self.counts: Tensor | None = None

    @property
    def needs_histogram(self) -> bool:
        return self.kind in ("percentile", "mse")

    def update(self, x: Tensor) -> None:
        """Add a batch. NaN is not filtered out: `calibrate` reports it."""
        x = x.float()
        low, high = torch.aminmax(x)
        if self.low is None:
            self.low, self.high = low, high
        elif self.kind == "moving_average":
            self.low = torch.lerp(low, self.low, self.momentum)
            self.high = torch.lerp(high, self.high, self.momentum)
        else:
            old = self.low, self.high
            self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
            if self.needs_histogram:
                self.counts = rebin(self.counts, old, (self.low, self.high))
        if self.needs_histogram:
            counts = histogram(x, self.low, self.high)
            self.counts = counts if self.counts is None else self.counts + counts

    def merge(self) -> None:
        """Merge the statistics over the ranks of a distributed run."""
        if self.low is None or not (dist.is_available() and dist.is_initialized()):
            return
        own = self.low, self.high
        self.low, self.high = self.low.clone(), self.high.clone()
        if self.kind == "moving_average":
            for value in (self.low, self.high):
                dist.all_reduce(value)
                value /= dist.get_world_size()
            return
        dist.all_reduce(self.low, dist.ReduceOp.MIN)
        dist.all_reduce(self.high, dist.ReduceOp.MAX)
        if self.needs_histogram:
            self.counts = rebin(self.counts, own, (self.low, self.high))
            dist.all_reduce(self.counts)

    def range(self) -> tuple[Tensor, Tensor]:
        """Return low and high, each (1,), or for `mse` (17,), indexed by bits."""
        if self.kind == "percentile":
            return percentile_range(self.counts, self.low, self.high, self.percentile)
        if self.kind == "mse":
            return mse_ranges(self.counts, self.low, self.high)
        return self.low.reshape(1), self.high.reshape(1)


def histogram(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Count the values of `x` in BINS equal bins of [low, high], on its device."""
    width = (high - low) / BINS
    place = ((x.flatten() - low) / torch.where(width > 0, width, 1.0)).clamp_(0, BINS - 1)
    place.nan_to_num_()  # `calibrate` reports values that are not finite
    return torch.bincount(place.long(), minlength=BINS).double()


def rebin(counts: Tensor | None, old: tuple, new: tuple) -> Tensor | None:
    """Move counts to the bins of a wider range, assigning each bin by its centre."""
    if counts is None:
        return None
    width = (new[1] - new[0]) / BINS
    place = (_centres(*old) - new[0]) / torch.where(width > 0, width, 1.0)
    moved = torch.zeros_like(counts)
    return moved.index_add_(0, place.clamp_(0, BINS - 1).long(), counts)


def _centres(low: Tensor, high: Tensor) -> Tensor:
    steps = torch.arange(BINS, device=low.device, dtype=torch.float64) + 0.5
    return low + steps * ((high - low).double() / BINS)


def percentile_range(
    counts: Tensor, low: Tensor, high: Tensor, percentile: float
) -> tuple[Tensor, Tensor]:
    """Return the range that keeps `percentile` % of the counted values."""
    share = counts.cumsum(0) / counts.sum()
    left_out = 1 - percentile / 100
    below = 0.0 if bool(low >= 0) else left_out / 2
    edges = torch.linspace(0, 1, BINS + 1, device=low.device, dtype=torch.float64)
    edges = low + edges * (high - low).double()
    first = torch.searchsorted(share, share.new_tensor([below]), right=True) if below else 0
    last = torch.searchsorted(share, share.new_tensor([1 - (left_out - below)]))
    lower = edges[first].reshape(1) if below else low.reshape(1)
    upper = edges[last.clamp(max=BINS - 1) + 1].reshape(1)
    return lower.float(), torch.minimum(upper.float(), high.reshape(1))


def mse_ranges(counts: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each bit-width the shrunken range whose affine grid has the least squared error.

    Tries low and high times i/100, i = 1..100, which keeps a range that starts at zero there.
    """
    x = _centres(low, high)  # (B,)
    shrink = torch.arange(1, CANDIDATES + 1, device=low.device, dtype=torch.float64) / CANDIDATES
    lows, highs = low.double() * shrink, high.double() * shrink  # (K,)
    found = [torch.zeros_like(lows[0])]  # 0 bits has no range
    best_low, best_high = found.copy(), found.copy()
    for bits in range(1, MAX_BITS + 1):
        n = 2**bits - 1
        s = ((highs - lows) / n)[:, None]  # (K, 1)
        s = torch.where(s > 0, s, 1.0)
        z = -(lows[:, None] / s).round()
        value = (x / s).round_().add_(z).clamp_(0, n).sub_(z).mul_(s)  # (K, B)
        best = value.sub_(x).square_().mul_(counts).sum(1).argmin()
        best_low.append(lows[best])
        best_high.append(highs[best])
    return torch.stack(best_low).float(), torch.stack(best_high).float()


def offset_ranges(counts: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each bit-width, (17,), the range whose 2^b even levels have the least squared error.

    Both ends are levels, since an offset can be any number (LSQ+). They are searched together, in
    steps of 1/16, then 1/64 and 1/256 of the observed range; above 8 bits that range is returned.
    """
    x = (torch.arange(BINS, device=low.device) + 0.5) / BINS  # in units of the range
    weights = (counts / counts.sum()).float()
    ends = torch.zeros(MAX_BITS + 1, 2, device=low.device)
    ends[:, 1] = 1.0
    for bits in range(1, 9):
        found = ends.new_tensor([0.5, 0.5])
        for reach, step in ((8 / 16, 1 / 16), (4 / 64, 1 / 64), (4 / 256, 1 / 256)):
            moves = torch.arange(-reach, reach + step / 2, step, device=low.device)
            tried = (found + torch.cartesian_prod(moves, moves)).clamp_(0, 1)  # (K, 2)
            found = tried[_squared_errors(x, weights, *tried.unbind(1), 2**bits - 1).argmin()]
        ends[bits] = found
    low, high = low.float() + ends.T * (high - low).float()
    return low, high


def _squared_errors(x: Tensor, weights: Tensor, low: Tensor, high: Tensor, n: int) -> Tensor:
    """Return the weighted error of `x`, (B,), on n + 1 levels from `low` to `high`, each (K,)."""
    s = ((high - low) / n)[:, None]
    low, valid = low[:, None], s > 0
    s = torch.where(valid, s, 1.0)
    value = x.sub(low).div_(s).round_().clamp_(0, n).mul_(s).add_(low)  # (K, B)
    return torch.where(valid.squeeze(1), value.sub_(x).square_() @ weights, torch.inf)
