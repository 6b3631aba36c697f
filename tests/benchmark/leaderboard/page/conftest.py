"""One browser for all of the page's tests."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.benchmark.browsing import start


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Any]:
    driver = start(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()
