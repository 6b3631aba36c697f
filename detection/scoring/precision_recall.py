"""COCO's twelve metrics from matches: `COCOeval.accumulate` and `summarize`, to the last bit."""

import numpy as np

from lowbit.detection.scoring.matches import AREAS, HIT, IGNORED, IOUS, MOST, RECALLS, Matches

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
NOTHING = -1.0  # of classes and areas without objects


def precisions(matches: Matches) -> np.ndarray:
    """Return the best precision at or above each recall, (T, 101, K, A); -1 without objects.

    Precision is highest, and recall rises, only at hits, so nothing else is computed.
    """
    found = np.full((len(IOUS), len(RECALLS), matches.classes, len(AREAS)), NOTHING)
    for area, objects in enumerate(matches.objects):
        for place in np.flatnonzero(objects):
            outcome = matches.outcome[area, :, matches.starts[place] : matches.starts[place + 1]]
            seen = np.cumsum(outcome != IGNORED, axis=1)
            for threshold, hits in enumerate(outcome == HIT):
                at = np.flatnonzero(hits)
                right = np.arange(1.0, len(at) + 1)
                precision = right / (seen[threshold, at] + np.spacing(1))
                best = np.maximum.accumulate(precision[::-1])[::-1]
                reached = np.searchsorted(right / objects[place], RECALLS)
                found[threshold, :, place, area] = np.append(best, 0.0)[reached]
    return found


def recalls(matches: Matches) -> np.ndarray:
    """Return the recall of the 1, 10 and 100 surest detections in an image, (T, K, A, 3)."""
    found = np.full((len(IOUS), matches.classes, len(AREAS), len(MOST)), NOTHING)
    classes = np.repeat(np.arange(matches.classes), np.diff(matches.starts))
    for area, objects in enumerate(matches.objects):
        some = objects > 0
        for threshold, outcome in enumerate(matches.outcome[area]):
            for most, limit in enumerate(MOST):
                hits = np.bincount(
                    classes[(outcome == HIT) & (matches.rank < limit)], minlength=matches.classes
                )
                found[threshold, some, area, most] = hits[some] / objects[some]
    return found


def summarize(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    """Return the twelve metrics, as shares; -1 where nothing counts."""
    half, three_quarters = (np.flatnonzero(at == IOUS) for at in (0.5, 0.75))
    every = precision[..., 0]
    parts = (
        every, every[half], every[three_quarters], *(precision[..., area] for area in (1, 2, 3)),
        *(recall[:, :, 0, most] for most in (0, 1, 2)), *(recall[:, :, area, 2] for area in (1, 2, 3)),
    )  # fmt: skip
    return {name: _mean(part) for name, part in zip(METRICS, parts, strict=True)}


def _mean(part: np.ndarray) -> float:
    defined = part[part > NOTHING]
    return float(np.mean(defined)) if len(defined) else NOTHING
