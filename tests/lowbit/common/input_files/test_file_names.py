"""Names that lead out of a folder, and paths that are none."""

from pathlib import Path

import pytest

from lowbit.common.input_files.file_names import expanded, is_inside, is_name


@pytest.mark.parametrize(
    "name", ["a.jpg", "sub/a.jpg", "..a", "a..", "a/..b/c", "猫 ё.jpg", "a b", "."]
)
def test_names_inside_a_folder(name):
    assert is_inside(name)


OUT = [
    "",
    "..",
    "../a",
    "a/../../b",
    "a/..",
    "/a",
    "//a",
    "C:\\a",
    "C:a",
    "a\\b",
    "..\\a",
    "a\0b",
    "\ud800",
]


@pytest.mark.parametrize("name", OUT)
def test_names_that_lead_out(name):
    assert not is_inside(name) and not is_name(name)


def test_a_name_has_no_folder():
    assert is_name("my birds") and not is_name("a/b") and not is_name(".")


def test_a_path_is_expanded_or_refused(monkeypatch):
    monkeypatch.setenv("HOME", "/home/jane")
    assert expanded("~/x.yaml") == Path("/home/jane/x.yaml") and expanded(Path("a/b")) == Path(
        "a/b"
    )
    for wrong in ("a\0b", "~nobody-of-that-name/x", "x" * 300, "a/" + "x" * 300, "\ud800"):
        with pytest.raises(ValueError, match="is no file name"):
            expanded(wrong)
