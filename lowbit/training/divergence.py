"""Detect and report training that diverged to infinity or NaN."""

from torch import Tensor


def first_not_finite(losses: Tensor) -> int | None:
    """Return the index of the first infinite or NaN loss among (steps,), or None.

    Waits for the device: call it once per epoch or before saving a state, not in every step.
    """
    finite = losses.isfinite()
    return None if bool(finite.all()) else int((~finite).int().argmax())


def check_finite(losses: Tensor, *, first_step: int, lr: float, what: str) -> None:
    """Raise if one of the losses (steps,) of successive steps is not finite; see `first_not_finite`.

    Args:
        first_step: number of the first step.
        lr: learning rate of the steps.
        what: the network being trained, for the message.

    Raises:
        FloatingPointError: with the step, the loss before it, and what to change.
    """
    bad = first_not_finite(losses)
    if bad is None:
        return
    before = f"{losses[bad - 1].item():.4g} at the step before" if bad else "in an earlier epoch"
    raise diverged(
        f"the {what}'s loss is {losses[bad].item()} at step {first_step + bad} with lr {lr:g}",
        last_good=f"last good: {before}",
        advice="Lower lr by a factor of ten; if that does not help, the checkpoint's own features are not "
        "finite.",
    )


def diverged(found: str, *, last_good: str, advice: str) -> FloatingPointError:
    """Return the error for a diverged training.

    Args:
        found: what is not finite and where.
        last_good: the last finite state or loss.
        advice: what to change.
    """
    return FloatingPointError(
        f"{found} ({last_good}); training stopped and nothing after it was saved. {advice}"
    )


def diverged_at_iteration(
    iteration: int, losses: object, *, lr: float, good: int | None
) -> FloatingPointError:
    """Return the error for a training that counts iterations.

    Args:
        iteration: where the loss became infinite or NaN, counted from 1.
        losses: their values there.
        lr: the recipe's learning rate.
        good: iteration of the last saved state, with finite losses before it; None without.
    """
    return diverged(
        f"the loss became infinite or NaN at iteration {iteration} with learning rate {lr:g}: {losses}",
        last_good=f"the state after iteration {good} is kept"
        if good
        else "no state was saved before",
        advice="Lower `lr` or raise `warmup_iterations`.",
    )
