"""Losses and bits of the current epoch, copied to the host asynchronously."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from lowbit.pretrain.pairings import Reduction, total
from lowbit.quant import Precision
from lowbit.training import distributed
from lowbit.training.divergence import first_not_finite


class Record:
    """Collect the terms of the loss and the precisions drawn in each step of an epoch.

    A step leaves its terms on the device. `fold` starts copying them to the host, `values` waits.

    Args:
        reduction: from terms to the loss.
        steps: of the whole epoch.
    """

    def __init__(self, reduction: Reduction, steps: int) -> None:
        self.reduction, self.steps = reduction, steps
        self.names: tuple[str, ...] = ()
        self.drawn: list[tuple[Precision, ...]] = []
        self._rows: list[Tensor] = []  # (T,) each, on the device
        self._folded: list[Tensor] = []  # (n, T) each, on the host once `_arrived`
        self._arrived: torch.cuda.Event | None = None

    def __len__(self) -> int:
        return len(self.drawn)

    def add(self, names: tuple[str, ...], row: Tensor, drawn: tuple[Precision, ...]) -> None:
        """Record a step: its terms (T,) and the precisions drawn."""
        self.names = names
        self._rows.append(row)
        self.drawn.append(drawn)

    def fold(self) -> None:
        """Average new values over the processes and start copying them to the host."""
        if not self._rows:
            return
        rows = distributed.mean(torch.stack(self._rows))
        self._rows.clear()
        self._folded.append(rows.to("cpu", non_blocking=True))
        if rows.is_cuda:
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def values(self) -> Tensor:
        """Return the folded terms (steps, T), waiting for them."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return torch.cat(self._folded) if self._folded else torch.empty(0, len(self.names))

    def losses(self) -> Tensor:
        """Return the losses of the folded steps."""
        return total(self.values(), self.reduction)

    def metrics(self) -> dict[str, Any]:
        """Return means and counts of the epoch as plain data."""
        self.fold()
        bits = Counter(str(precision) for step in self.drawn for precision in step)
        means = self.values().double().mean(0).tolist()
        return {
            "loss": float(self.losses().double().mean()),
            "terms": dict(zip(self.names, means, strict=True)),
            "bits": dict(sorted(bits.items())),
        }

    def divergence(self, *, finite: bool = True) -> str | None:
        """Describe the first non-finite step, counted from 1, and its bits; None if all are finite.

        Args:
            finite: whether the weights are finite after the last step.
        """
        losses = self.losses()
        bad = first_not_finite(losses)
        if bad is None and finite:
            return None
        step = len(self) - 1 if bad is None else bad
        what = f"the loss became {losses[step]:g}"
        if bad is None:
            what = "weights became infinite or NaN"
        bits = ", ".join(map(str, self.drawn[step])) or "none"
        return f"{what} at step {step + 1} of {self.steps} (bits drawn: {bits})"

    def state_dict(self) -> dict[str, Any]:
        """Return the recorded part of an epoch."""
        self.fold()
        return {
            "names": list(self.names),
            "terms": self.values(),
            "drawn": [[str(precision) for precision in step] for step in self.drawn],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.names = tuple(state["names"])
        self.drawn = [tuple(map(Precision.parse, step)) for step in state["drawn"]]
        self._rows, self._folded = [], [state["terms"]] if self.drawn else []
