"""What is written is read as the same values, by this reader and by YAML 1.1."""

import pytest
import yaml

from lowbit.common.input_files.yaml_values import parse
from lowbit.common.input_files.yaml_writer import to_yaml

TEXTS = (
    "1e-3",
    "08",
    "010",
    "0o10",
    "0x1F",
    "1:30",
    "1_000",
    "yes",
    "2026-01-31",
    ".5",
    "1.",
    "null",
)


@pytest.mark.parametrize(
    "value", [*TEXTS, "", "~", "a: b", "猫", 1e-5, 0.001, 3, -2, True, None, [], {}]
)
def test_values_come_back(value):
    written = to_yaml({"key": [value]})
    for found in (parse(written).value, yaml.safe_load(written)):
        assert found == {"key": [value]} and type(found["key"][0]) is type(value)
