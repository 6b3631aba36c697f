"""How numbers, metrics and boards are written, the same in every format."""

import math

NOTE = (
    "Mean over seeds ± standard deviation; a dagger marks a single seed. The small number is the rank: "
    "1 + how many rows are found better (Tukey-Kramer, 5 %); the first group is bold."
)
SENT = (
    "Of the numbers that others sent, verified ones follow from the predictions that came with them; "
    "self-reported ones are the sender's word and have no rank."
)
ZERO_SHOT = "§"  # marks a precision that a network was not trained at
NOTHING = "There is no result to show: no job has finished with a number yet."
TASK_TITLES = {"classification": "Classification", "detection": "Detection"}
_METRICS = {"top1": "top-1", "mean_per_class": "mean per class"}


def number(value: float, *, sign: bool = False) -> str:
    """Write a percentage with one digit after the point and a true minus sign; "–" for NaN.

    Example:
        >>> number(93.149), number(-0.04), number(-1.25, sign=True), number(0.3, sign=True)
        ('93.1', '0.0', '−1.2', '+0.3')
    """
    if math.isnan(value):
        return "–"
    text = f"{value:.1f}"
    text = "0.0" if text == "-0.0" else text
    plus = "+" if sign and value > 0 and text != "0.0" else ""
    return plus + text.replace("-", "−")


def metric_name(metric: str) -> str:
    """Return a metric's printed name; by default its own."""
    return _METRICS.get(metric, metric)
