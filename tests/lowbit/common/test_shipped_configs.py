"""Recipes and suites are found as files, or by their names among those that come with the package."""

from pathlib import Path

import pytest

from lowbit.common.shipped_configs import find_config, shipped_config, shipped_name

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("name", ["demo", "demo.yaml", "configs/suites/demo.yaml"])
def test_a_name_that_is_no_file_is_looked_up(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = find_config(name, "suites")
    assert found == CONFIGS / "suites" / "demo.yaml"
    assert shipped_name(found) == "configs/suites/demo.yaml"


def test_a_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text("name: mine\n")
    assert find_config("demo", "suites") == Path("demo")
    assert shipped_name(Path("demo")) is None


def test_an_unknown_name_is_answered_with_the_nearest_and_the_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = r"no file dmeo, .*nothing was run. Did you mean 'demo'.* configs/suites: cifar10_small, "
    with pytest.raises(FileNotFoundError, match=said):
        find_config("dmeo", "suites")
    Path("mine.yaml").touch()
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'mine.yaml'"):
        find_config("mien.yaml", "suites")
    with pytest.raises(FileNotFoundError):
        find_config("digits_linear", "suites")  # a recipe


@pytest.mark.parametrize(
    "name", ["configs/../setup.py", "../configs/suites/demo.yaml", "/etc/passwd", "suites/demo", ""]
)
def test_no_other_file_is_shipped(name):
    assert shipped_config(name) is None
