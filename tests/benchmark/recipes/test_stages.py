"""Every stage's package offers the whole contract, the fakes of the tests included."""

import pytest

from lowbit.benchmark.recipes.errors import RecipeError
from lowbit.benchmark.recipes.stages import STAGES, Stage, get_stage


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_offers_the_whole_contract(name):
    assert isinstance(get_stage(name), Stage)
    assert get_stage(name).Recipe.cosmetic


@pytest.mark.parametrize("name", STAGES)
def test_so_do_the_fakes(bench, name):
    stage = get_stage(name)
    assert stage.__file__.startswith(str(bench.stages))
    assert isinstance(stage, Stage)


def test_an_unknown_stage_is_answered_with_the_nearest():
    with pytest.raises(RecipeError, match="Did you mean 'pretrain'"):
        get_stage("pretrian")
