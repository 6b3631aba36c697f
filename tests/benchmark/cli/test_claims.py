"""The command that tries claims."""

import json

import pytest
import yaml

from lowbit.benchmark.cli import claims
from tests.benchmark.claims.made_results import CLAIM, Runs


@pytest.fixture
def folder(tmp_path):
    runs = Runs(tmp_path / "runs")
    for method, values in (("SSQL", (90.0, 91.0, 92.4)), ("SimSiam", (81.0, 81.4, 84.0))):
        runs.method(method, {seed: {"4w4a": value} for seed, value in enumerate(values)})
    return str(tmp_path / "runs")


def test_the_shipped_claims_are_tried(folder, capsys):
    assert claims.main([folder]) == 0
    out = capsys.readouterr().out
    assert "Frozen features of SSQL are more accurate than those of SimSiam at 4w4a." in out
    assert "1 supported, 94 not run" in out


def test_claims_of_a_file_as_json_and_markdown(folder, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"claims": [CLAIM]}))
    assert claims.main([folder, "--claims", str(path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["claim"], found["verdict"]) == ("ssql-4w4a", "supported")
    assert claims.main([folder, "--claims", str(path), "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("| Claim | Source |")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none"], "there is no folder none"),
        (["{runs}", "--claims", "none.yaml"], "none.yaml"),
        (["{runs}", "none"], "there is no folder none"),
    ],
)
def test_mistakes_are_said(words, said, folder, capsys):
    assert claims.main([word.format(runs=folder) for word in words]) == 1
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err


def test_json_and_markdown_exclude_each_other(folder, capsys):
    with pytest.raises(SystemExit) as stop:
        claims.main([folder, "--json", "--markdown"])
    assert stop.value.code == 2 and "not allowed with" in capsys.readouterr().err
