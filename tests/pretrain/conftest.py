"""Every pretraining test may use a quarter of the digits."""

import pytest

from tests.small_digits import small_digits


@pytest.fixture(scope="module", autouse=True)
def _small_digits(tmp_path_factory):
    with small_digits(tmp_path_factory.mktemp("splits")):
        yield
