"""Parts of documents are what docs/evidence makes of them now."""

import pytest

from lowbit.tools.evidence.documents import make, updated
from lowbit.tools.evidence.update import DOCUMENTS, ROOT, main
from tests.benchmark.result_folders import write

EVIDENCE = ROOT / "docs" / "evidence"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_say_what_the_evidence_says(name):
    text = (ROOT / name).read_text()
    assert "<!-- evidence: " in text
    assert updated(text, EVIDENCE) == text, "run python -m lowbit.tools.evidence.update"


def test_only_the_parts_between_comments_are_made_anew(tmp_path):
    write(tmp_path / "suite", "0" * 12, values={"FP": 90.0})
    part = "<!-- evidence: scores suite linear -->\n{}\n<!-- end of evidence -->"
    text = f"before\n{part.format('| 12 |')}\nbetween\n{part.format('')}\nafter\n"
    made = updated(text, tmp_path)
    table = "\n|  | FP | seeds |\n| --- | ---: | ---: |\n| mine | 90.0 | 1 |\n"
    assert made == f"before\n{part.format(table)}\nbetween\n{part.format(table)}\nafter\n"
    assert updated(made, tmp_path) == made


@pytest.mark.parametrize("what", ["score", "scores pocket_tr", "claims of others"])
def test_an_unknown_part_is_refused(what):
    with pytest.raises(ValueError, match="nothing was changed"):
        make(what, EVIDENCE)


def test_the_check_changes_nothing(capsys):
    before = {name: (ROOT / name).read_bytes() for name in DOCUMENTS}
    assert main(["--check"]) == 0
    assert "up to date" in capsys.readouterr().out
    assert before == {name: (ROOT / name).read_bytes() for name in DOCUMENTS}
