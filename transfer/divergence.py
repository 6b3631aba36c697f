"""The end of a training whose loss is no longer a number."""

from torch import Tensor


def check_finite(losses: Tensor, *, first_step: int, lr: float, what: str) -> None:
    """Raise if one of an epoch's losses (steps,) is not finite.

    Called once an epoch, on losses kept on the device: no step waits for the host.

    Raises:
        FloatingPointError: with the step, the loss before it, and what to change.
    """
    finite = losses.isfinite()
    if bool(finite.all()):
        return
    bad = int((~finite).int().argmax())
    before = f"{losses[bad - 1].item():.4g} at the step before" if bad else "in an earlier epoch"
    raise FloatingPointError(
        f"the {what}'s loss is {losses[bad].item()} at step {first_step + bad} with lr {lr:g} "
        f"(last good: {before}); training stopped and nothing was scored. "
        "Lower lr by a factor of ten; if it stays, the checkpoint's own features are not finite."
    )
