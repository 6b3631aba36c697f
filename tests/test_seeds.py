"""Tests draw the same numbers in every run, in any order; so do the fixtures that they share."""

import pytest
import torch


def drawn():
    torch.rand(3)  # whatever was drawn before
    return torch.rand(4)


@pytest.fixture(scope="session")
def of_session():
    return drawn()


@pytest.fixture(scope="package")
def of_package():
    return drawn()


@pytest.fixture(scope="module")
def of_module():
    return drawn()


@pytest.mark.parametrize("scope", ["session", "package", "module"])
def test_fixtures_of_every_scope_are_seeded(request, scope):
    shared = request.getfixturevalue(f"of_{scope}")
    torch.manual_seed(0)
    assert shared.equal(drawn())


def test_each_test_starts_with_the_seed():
    assert torch.rand(3).equal(torch.rand(3, generator=torch.Generator().manual_seed(0)))
