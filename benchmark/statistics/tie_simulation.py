"""How often ranks tell true ties apart, by simulation: the table of docs/statistics.md.

python -m lowbit.benchmark.statistics.tie_simulation [--columns 2000]

Networks of one true accuracy answer images drawn from one population. A network is right where

    difficulty[image] + own[network, image] + pretraining + scoring + noise[seed, image] > threshold

is, all terms normal. `own` is what networks differ in from image to image, so that two of them disagree;
`pretraining` and `scoring` shift all of a network's answers with either seed; `noise` flips some. No
network is better than another: whatever a rank says apart from 1 is wrong.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from lowbit.benchmark.statistics.ranking import Sample, rank_groups

_ACCURACY = 0.93
_DIFFICULTY, _OWN = (
    1.0,
    0.5,
)  # standard deviations, with which two networks disagree on 7 % of images


@dataclass(frozen=True)
class Setting:
    """What the columns of a board are like.

    Attributes:
        rows: methods, or checkpoints where each has one pretraining.
        images: test images.
        pretrainings, scorings: pretraining seeds a row, scoring seeds a pretraining.
        pretraining, scoring, noise: standard deviations of the terms above.
        gap: how much better the last row is, in standard deviations of difficulty; 0: not at all.
    """

    rows: int
    images: int = 540
    pretrainings: int = 1
    scorings: int = 1
    pretraining: float = 0.0
    scoring: float = 0.0
    noise: float = 0.0
    gap: float = 0.0


Test = Callable[[np.ndarray], list[Sample]]


def draw(setting: Setting, generator: np.random.Generator) -> np.ndarray:
    """Return right answers, (rows, pretrainings, scorings, images)."""
    s, shape = setting, (setting.rows, setting.pretrainings, setting.scorings, setting.images)
    total = np.sqrt(_DIFFICULTY**2 + _OWN**2 + s.pretraining**2 + s.scoring**2 + s.noise**2)
    latent = generator.normal(0, _DIFFICULTY, s.images) + total * ndtri(_ACCURACY)
    latent = latent + generator.normal(0, _OWN, (s.rows, s.pretrainings, 1, s.images))
    latent = latent + generator.normal(0, s.pretraining, (*shape[:2], 1, 1))
    latent = latent + generator.normal(0, s.scoring, (*shape[:3], 1))
    latent = latent + generator.normal(0, s.noise, shape)
    latent[-1] += s.gap
    return latent > 0


def seeds_alone(right: np.ndarray) -> list[Sample]:
    """Rank by all seeds as one kind, and by no images: Tukey and Kramer's test."""
    return [Sample(tuple(values.ravel()), stderr=0.0) for values in 100 * right.mean(axis=-1)]


def unpaired(right: np.ndarray) -> list[Sample]:
    """Rank by pretrainings (or by scoring seeds, of one) and images, as if of samples of their own."""
    return [
        Sample(values, stderr=_stderr(answers), images=answers.shape[-1], unit=_unit(answers))
        for values, answers in _rows(right)
    ]


def paired(right: np.ndarray) -> list[Sample]:
    """Rank as the board does where predictions are kept."""
    found = []
    for values, answers in _rows(right):
        mean, unit = answers.mean(axis=(0, 1)), _unit(answers)
        found.append(
            Sample(values, deviations=unit * (mean - mean.mean()), answered="all", unit=unit,
                   images=answers.shape[-1])
        )  # fmt: skip
    return found


def _rows(right: np.ndarray) -> Iterator[tuple[tuple[float, ...], np.ndarray]]:
    for answers in right:
        by_seed = 100 * answers.mean(axis=-1)
        yield tuple(by_seed.mean(axis=1) if len(by_seed) > 1 else by_seed[0]), answers


def _stderr(answers: np.ndarray) -> float:
    share = answers.mean()
    return 100 * float(np.sqrt(share * (1 - share) / answers.shape[-1]))


def _unit(answers: np.ndarray) -> float:
    return 100 / answers.shape[-1]


def told_apart(setting: Setting, test: Test, *, columns: int, seed: int = 0) -> float:
    """Return the share of columns in which any row is ranked below another.

    Example:
        >>> told_apart(Setting(rows=2), paired, columns=50) <= 0.2
        True
    """
    generator = np.random.default_rng(seed)
    found = sum(max(rank_groups(test(draw(setting, generator)))) > 1 for _ in range(columns))
    return found / columns


# Whose spreads are: none between seeds, as of a convex probe; flipped answers, as of fine-tuning; shifts.
_SETTINGS = (
    ("one scoring seed", Setting(4)),
    ("2 seeds that hardly differ", Setting(4, scorings=2, noise=0.02)),
    ("2 seeds that flip answers", Setting(4, scorings=2, noise=0.5)),
    ("3 seeds that flip answers", Setting(4, scorings=3, noise=0.5)),
    ("3 seeds that shift", Setting(4, scorings=3, scoring=0.15)),
    ("the same, 2 rows", Setting(2, scorings=3, scoring=0.15)),
    ("the same, 12 rows", Setting(12, scorings=3, scoring=0.15)),
    ("the same, 5,000 images", Setting(4, images=5000, scorings=3, scoring=0.15)),
    ("3 pretrainings, 2 scorings", Setting(4, 540, 3, 2, pretraining=0.2, scoring=0.05, noise=0.2)),
    ("the same, 5,000 images", Setting(4, 5000, 3, 2, pretraining=0.2, scoring=0.05, noise=0.2)),
    ("the same, 2 pretrainings", Setting(4, 5000, 2, 2, pretraining=0.2, scoring=0.05, noise=0.2)),
)  # fmt: skip
_TESTS = {"seeds alone": seeds_alone, "and images": unpaired, "and images, paired": paired}
_GAP = 0.6  # a row that much better has about 5 points more


def table(columns: int) -> Iterator[str]:
    """Yield the lines of the table, in Markdown."""
    yield f"| a column of the board | rows | {' | '.join(_TESTS)} | a better row found |"
    yield "|---|---:|" + "---:|" * (len(_TESTS) + 1)
    for name, setting in _SETTINGS:
        ties = [told_apart(setting, test, columns=columns) for test in _TESTS.values()]
        better = Setting(**{**vars(setting), "gap": _GAP})
        power = told_apart(better, paired, columns=max(columns // 4, 1))
        shares = " | ".join(f"{100 * share:.1f} %" for share in (*ties, power))
        yield f"| {name} | {setting.rows} | {shares} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Print how often true ties are told apart.")
    parser.add_argument("--columns", type=int, default=2000, help="columns a line (default: 2000)")
    for line in table(parser.parse_args(arguments).columns):
        print(line, flush=True)


if __name__ == "__main__":
    main()
