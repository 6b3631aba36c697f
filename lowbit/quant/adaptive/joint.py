"""One training step for all bit-widths: the losses of CoQuant Alg. 1 and of its baselines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.quant.adaptive.swapping import DEPTHS, student_pass, student_probabilities, swap_units
from lowbit.quant.adaptive.teachers import CONFIDENCES, DISTANCES, Choice, model_distances
from lowbit.quant.kernels.range_quantize import wide


@dataclass(frozen=True)
class Method:
    """Differences between the methods.

    Attributes:
        labels: whether every bit-width learns from the labels, or only the highest.
        teacher: whose outputs a bit-width also learns from: "dynamic" (Eq. 4), "next" (the next
            higher bit-width), or none.
        swaps: whether blocks are replaced by the teacher's.
        shared_clips: whether all bit-widths share one clip per layer.
    """

    labels: bool = True
    teacher: str | None = None
    swaps: bool = False
    shared_clips: bool = False


METHODS = {
    "coquant": Method(teacher="dynamic", swaps=True),
    "adabits": Method(),  # Jin et al. 2020, with switchable clipping levels
    "switchable-bn": Method(shared_clips=True),
    # Yu et al. 2021: recursive distillation; weights ScaledDoReFa, activations DoReFa
    "any-precision": Method(labels=False, teacher="next"),
    "individual": Method(),  # one bit-width: the baseline of the others
}


class Outcome(NamedTuple):
    """Results of a step by bit-width: losses (B,), logits (N, C) and teachers' bits, detached."""

    losses: Tensor
    outputs: list[Tensor]
    teachers: list[int | None]


class JointStep:
    """Computes the gradients of a method's loss, one bit-width after the other.

    L = Σ_b CE(y_b, label) + KL(y_t ‖ y_b), from the highest b down. Each bit-width's pass is followed at
    once by its backward pass, so that only one graph exists at a time; the gradients are those of the
    sum, since a teacher's outputs are constants.

    Args:
        model: from `make_adaptive`, images to logits.
        bits: B.
        method: a name in `METHODS`.
        swap_probability: initial p_1, the probability that a block stays the student's; 1 swaps nothing.
        swap_depth: how p_l depends on depth, "linear" or "uniform".
        teacher_lambda: λ of Eq. 4.
        confidence: a name in `CONFIDENCES`.
        distance: one of `DISTANCES`.

    Raises:
        ValueError: a name is unknown, or the network has no blocks to swap.
    """

    def __init__(
        self,
        model: nn.Module,
        bits: Sequence[int],
        method: str = "coquant",
        *,
        swap_probability: float = 0.9,
        swap_depth: str = "linear",
        teacher_lambda: float = 1e-3,
        confidence: str = "entropy",
        distance: str = "l2",
    ) -> None:
        for what, value, known in (
            ("method", method, METHODS),
            ("swap_depth", swap_depth, DEPTHS),
            ("confidence", confidence, CONFIDENCES),
            ("distance", distance, DISTANCES),
        ):
            if value not in known:
                raise ValueError(
                    f"{what} {value!r} is unknown; nothing was trained. Use one of {', '.join(known)}."
                )
        self.model, self.method = model, METHODS[method]
        self.bits = tuple(sorted(bits, reverse=True))
        self.swap_probability, self.swap_depth = swap_probability, swap_depth
        self.teacher_lambda, self.distance = teacher_lambda, distance
        self.confidence = CONFIDENCES[confidence]
        swaps = self.method.swaps and swap_probability < 1 and len(bits) > 1
        self.units = swap_units(model) if swaps else []
        if swaps and not self.units:
            raise ValueError(
                f"this {type(model).__name__} has no residual blocks to swap; nothing "
                "was trained. Set swap_probability to 1."
            )

    def __call__(
        self,
        x: Tensor,
        y: Tensor,
        *,
        progress: float,
        generator: torch.Generator,
        backward: Callable[[Tensor], None] = Tensor.backward,
    ) -> Outcome:
        """Add a batch's gradients to the parameters'.

        Args:
            x: images.
            y: labels (N,).
            progress: completed share of the training, 0 to 1.
            generator: draws which blocks are swapped, on the CPU.
            backward: called with each bit-width's loss.
        """
        losses, outputs, teachers, confidences = [], [], [], []
        distances, choice = None, None
        if (
            self.method.teacher == "dynamic" and len(self.bits) > 2
        ):  # otherwise there is only one candidate
            distances = model_distances(self.model, self.bits, kind=self.distance)
        for place, b in enumerate(self.bits):
            t = self._teacher(place, choice)
            teachers.append(None if t is None else self.bits[t])
            swapped = [] if t is None else self._draw(progress, generator)
            with student_pass(self.model, b, swapped=swapped, teacher=teachers[-1]):
                logits = wide(self.model(x))
            loss = self._loss(logits, y, None if t is None else outputs[t])
            losses.append(loss.detach())
            outputs.append(logits.detach())
            if distances is not None and place + 1 < len(self.bits):
                confidences.append(self.confidence(outputs[-1], y))
                nearness = self.teacher_lambda * distances[: place + 1, place + 1]
                choice = Choice(torch.stack(confidences) + nearness)  # fetched during `backward`
            del logits
            backward(loss)
        return Outcome(torch.stack(losses), outputs, teachers)

    def _teacher(self, place: int, choice: Choice | None) -> int | None:
        """Return the index in `bits` of the teacher of the bit-width at index `place`."""
        if place == 0 or self.method.teacher is None:
            return None
        if self.method.teacher == "next" or place == 1:
            return place - 1
        return choice.get()

    def _draw(self, progress: float, generator: torch.Generator) -> list[nn.Module]:
        if not self.units:
            return []
        p = student_probabilities(
            self.swap_probability,
            units=len(self.units),
            progress=progress,
            depth=self.swap_depth,
        )
        draws = torch.rand(len(self.units), generator=generator)
        return [
            u for u, is_swapped in zip(self.units, (draws >= p).tolist(), strict=True) if is_swapped
        ]

    def _loss(self, logits: Tensor, y: Tensor, taught: Tensor | None) -> Tensor:
        loss = F.cross_entropy(logits, y) if self.method.labels or taught is None else 0.0
        if taught is None:
            return loss
        return loss + distillation(logits, taught)


def distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(y_t ‖ y_b), the mean over the batch, from logits (N, C); the teacher's are constants."""
    log_t = F.log_softmax(teacher.detach(), dim=1)
    return F.kl_div(F.log_softmax(student, dim=1), log_t, reduction="batchmean", log_target=True)
