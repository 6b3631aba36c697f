"""docs/results.md is what the models say."""

from pathlib import Path

import pytest

from lowbit.benchmark.results import document_schema
from lowbit.benchmark.results.result_file import Cost, Measurement, Result
from lowbit.benchmark.results.verdicts import JobVerdict

PAGE = Path(__file__).parents[3] / "docs" / "results.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == document_schema.page(), (
        "docs/results.md is not what the models say: python -m lowbit.benchmark.results.document_schema > docs/results.md"
    )


@pytest.mark.parametrize("model", [Result, Measurement, Cost, JobVerdict])
def test_every_field_has_a_row_with_its_sentence(model):
    section = document_schema.page().partition(f"### {model.__name__}\n")[2].partition("\n#")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert len(rows) == len(model.model_fields)
    for row, (name, field) in zip(rows, model.model_fields.items(), strict=True):
        assert row.startswith(f"| `{name}` |") and row.endswith(f"| {field.description} |")
        assert ("; may be absent" in row) != field.is_required()


def test_kinds_are_said_in_words():
    page = document_schema.page()
    assert "| `measurements` | list of [Measurement](#measurement); may be absent |" in page
    assert "| `costs` | [Cost](#cost) by name; may be absent |" in page
    assert "| `status` | `completed` or `failed` or `skipped` |" in page
    assert "| `stderr` | number ≥ 0 or null; may be absent |" in page
    assert "| `recipe` | anything by name |" in page
