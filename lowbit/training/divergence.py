"""The end of a training whose numbers are no longer finite."""

from torch import Tensor


def first_not_finite(losses: Tensor) -> int | None:
    """Return the place of the first loss (steps,) that is infinite or NaN; None: there is none.

    Waits for the device: ask once an epoch, or before a state is saved, and not in a step.
    """
    finite = losses.isfinite()
    return None if bool(finite.all()) else int((~finite).int().argmax())


def check_finite(losses: Tensor, *, first_step: int, lr: float, what: str) -> None:
    """Raise if one of the losses (steps,) of successive steps is not finite; see `first_not_finite`.

    Args:
        first_step: number of the first of them.
        lr: their learning rate.
        what: is trained.

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
        advice="Lower lr by a factor of ten; if it stays, the checkpoint's own features are not "
        "finite.",
    )


def diverged(found: str, *, last_good: str, advice: str) -> FloatingPointError:
    """Return the error that a diverged training ends with.

    Args:
        found: what is not finite, and where.
        last_good: the last state or loss that was.
        advice: what to change.
    """
    return FloatingPointError(
        f"{found} ({last_good}); training stopped and nothing after it was saved. {advice}"
    )


def diverged_at_iteration(
    iteration: int, losses: object, *, lr: float, good: int | None
) -> FloatingPointError:
    """Return the error of a training that counts iterations.

    Args:
        iteration: counted from 1, at which the loss was lost.
        losses: what they were.
        lr: the recipe's learning rate.
        good: iterations of the last training state, all of whose losses were finite; None without.
    """
    return diverged(
        f"the loss became infinite or NaN at iteration {iteration} with learning rate {lr:g}: {losses}",
        last_good=f"the state after iteration {good} is kept"
        if good
        else "no state was saved before",
        advice="Lower `lr` or raise `warmup_iterations`.",
    )
