"""The settings that come from environment variables, other than folders."""

import os

_FUSED = {"": None, "auto": None, "1": True, "yes": True, "0": False, "no": False}


def fused() -> bool | None:
    """Return `$LOWBIT_FUSED`: whether fused kernels are used; None: wherever they pay off at once.

    Raises:
        ValueError: it is neither.
    """
    text = os.environ.get("LOWBIT_FUSED", "").lower()
    if text not in _FUSED:
        raise ValueError(
            f"LOWBIT_FUSED is {text!r}; nothing was started. Set it to 1 (fused kernels everywhere), 0 "
            "(nowhere) or auto (wherever they need no warm-up, and on CUDA)."
        )
    return _FUSED[text]


def cache_bytes() -> float:
    """Return `$LOWBIT_CACHE_GB` in bytes: what cached features may use; 64 GB unless it is set.

    Raises:
        ValueError: it is not a number from 0 on.
    """
    text = os.environ.get("LOWBIT_CACHE_GB", "64")
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = -1.0
    if not limit >= 0:  # or not a number
        raise ValueError(
            f"LOWBIT_CACHE_GB is {text!r}, which is not a number from 0 on; no features were computed. "
            "Set it to the gigabytes that cached features may use."
        )
    return limit


def launcher_number(name: str, otherwise: int) -> int:
    """Return a number that a launcher such as torchrun set, or else `otherwise`.

    Raises:
        ValueError: it is no number.
    """
    text = os.environ.get(name, str(otherwise))
    if not (text.isdecimal() and len(text) < 10):
        raise ValueError(
            f"{name} is {text!r}, which is no number of processes; nothing was started. Unset it, or let "
            "torchrun set it."
        )
    return int(text)


def check_environment() -> None:
    """Refuse a setting of ours that is none, before anything is imported that needs it.

    Raises:
        ValueError: there is one.
    """
    fused()
    cache_bytes()
