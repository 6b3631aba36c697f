"""Choose among classifiers trained with different settings by validation accuracy."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from lowbit.data import Images
from lowbit.quant import Precision
from lowbit.transfer.probes.sgd_probe import classify

_logger = logging.getLogger(__name__)

Head = tuple[Tensor, Tensor]


def choose_on(
    val: Images | None,
    features: Callable[[Images, Precision], Tensor],
    heads: dict[Precision, Sequence[Head]],
    *,
    setting: str,
    values: Sequence[float],
) -> tuple[dict[Precision, Head], dict[str, Any]]:
    """Keep at each precision the head with the best top-1 on `val`; on ties, the first.

    Args:
        val: None if there is nothing to choose.
        features: maps images and a precision to features (N, D).
        heads: precision -> one weight (C, D) and bias (C,) for each of `values`.
        setting: the recipe's field that differs between them.
        values: of the setting.

    Returns:
        the heads, and for a result's details the choice, its images and the candidates.
    """
    if len(values) == 1:
        return {precision: only for precision, (only,) in heads.items()}, {}
    assert val is not None, "choosing requires validation images"
    kept, chosen, top1 = {}, {}, {}
    for precision, candidates in heads.items():
        x = features(val, precision)
        right = [int((classify(x, *head) == val.labels).sum()) for head in candidates]
        best = right.index(max(right))
        kept[precision], chosen[str(precision)] = candidates[best], values[best]
        top1[str(precision)] = [100 * count / len(val) for count in right]
        if best in (0, len(values) - 1) and len(values) > 2:
            _logger.info(
                "at %s the best %s, %g, is an end of those tried; a better one may lie beyond",
                precision,
                setting,
                values[best],
            )
    return kept, {
        "chosen": {
            "setting": setting,
            "on": val.split,
            "among": list(values),
            "value": chosen,
            "top1": top1,
        }
    }
