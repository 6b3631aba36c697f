"""True ties are told apart at the level of the test, on small draws of the documented table."""

import math

import numpy as np
import pytest

from lowbit.benchmark.statistics.ranking import rank_groups
from lowbit.benchmark.statistics.tie_simulation import (
    Setting,
    draw,
    paired,
    seeds_alone,
    told_apart,
    unpaired,
)

COLUMNS = 200
# 5 % and three standard errors of a share of COLUMNS draws
LEVEL = 0.05 + 3 * math.sqrt(0.05 * 0.95 / COLUMNS)


@pytest.mark.parametrize("test", [unpaired, paired])
@pytest.mark.parametrize(
    "setting",
    [
        Setting(4),
        Setting(4, scorings=2, noise=0.02),
        Setting(4, scorings=3, noise=0.5),
        Setting(4, images=2000, scorings=3, scoring=0.15),
        Setting(3, pretrainings=3, scorings=2, pretraining=0.2, noise=0.2),
    ],
)
def test_ties_are_told_apart_in_five_percent_of_columns(setting, test):
    assert told_apart(setting, test, columns=COLUMNS) <= LEVEL


def test_seeds_that_hardly_differ_made_ties_certain_differences():
    setting = Setting(4, scorings=2, noise=0.02)
    assert told_apart(setting, seeds_alone, columns=COLUMNS) > 0.5
    assert told_apart(setting, paired, columns=COLUMNS) <= LEVEL


def test_scoring_seeds_do_not_stand_for_pretrainings():
    setting = Setting(4, 2000, 3, 4, pretraining=0.2)
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(COLUMNS):
        right = draw(setting, generator)  # one pretraining of each: what a board of files sees
        wrong += max(rank_groups(paired(right[:, :1]))) > 1
    assert wrong / COLUMNS > 0.3
    assert told_apart(setting, paired, columns=COLUMNS) <= LEVEL


def test_pairing_by_image_finds_more():
    better = Setting(2, gap=0.3)
    found = {test: told_apart(better, test, columns=COLUMNS) for test in (unpaired, paired)}
    assert found[paired] > found[unpaired] + 0.2
