"""Suggestions for misspelt names."""

import pytest

from lowbit.common.suggest import did_you_mean


@pytest.mark.parametrize(
    ("name", "known", "text"),
    [
        ("epoch", ["epochs", "lr"], " Did you mean 'epochs'?"),
        ("SSQL-R18", ["ssql-r10"], " Did you mean 'ssql-r10'?"),
        ("lqs", ["LSQ", "PACT"], " Did you mean 'LSQ'?"),
        ("momentum", ["epochs", "lr"], ""),
        (3, ["epochs"], ""),
        ("any", [], ""),
    ],
)
def test_names_alike_in_any_case_are_suggested(name, known, text):
    assert did_you_mean(name, known) == text


def test_at_most_two_names_are_suggested_the_closest_first():
    assert did_you_mean("resnet1", ["resnet18", "resnet10", "resnet1x", "vit"]).count("'") == 4
