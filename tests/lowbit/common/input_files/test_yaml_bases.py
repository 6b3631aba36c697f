"""Files that extend others: chains, circles, and files that are none."""

import os
import socket

import pytest

from lowbit.common.input_files import yaml_bases
from lowbit.common.input_files.yaml_bases import ConfigFileError, load_file


@pytest.fixture
def write(tmp_path):
    def _write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return path

    return _write


def refused(path):
    with pytest.raises(ConfigFileError) as caught:
        load_file(path)
    assert "nothing was run" in str(caught.value) and len(str(caught.value)) < 1500
    return str(caught.value)


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device", "link to a pipe"])
def test_a_base_that_is_no_file_is_refused_and_not_waited_for(write, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    if "pipe" in kind:
        os.mkfifo("base.yaml")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("base.yaml")
    elif kind == "folder":
        (tmp_path / "base.yaml").mkdir()
    name = "/dev/zero" if kind == "device" else "base.yaml"
    if kind == "link to a pipe":
        os.symlink("base.yaml", "link.yaml")
        name = "link.yaml"
    said = refused(write("a.yaml", f"lr: 1\n_BASE_: {name}\n"))
    word = {"link to a pipe": "named pipe", "pipe": "named pipe"}.get(kind, kind)
    assert f"a.yaml, line 2) cannot be read: it is a {word}, not a file" in said


def test_a_file_has_a_longest_size(write, monkeypatch):
    monkeypatch.setattr(yaml_bases, "_LIMIT", 1000)
    assert load_file(write("a.yaml", "a: 1\n" + "#" * 900)) == {"a": 1}
    assert "it is longer than 1.0 kB" in refused(write("a.yaml", "a: 1\n" + "#" * 1000))


def test_a_chain_of_bases_has_a_longest_length(write):
    for number in range(yaml_bases._LONGEST_CHAIN):
        write(f"{number}.yaml", f"_BASE_: {number + 1}.yaml\n")
    last = write(f"{yaml_bases._LONGEST_CHAIN}.yaml", "a: 1\n")
    said = refused(last.with_name("0.yaml"))
    assert "would be the 17th of a chain" in said and "15.yaml, line 1)" in said
    assert load_file(last.with_name("1.yaml")) == {"a": 1}


def test_a_circle_through_a_link_is_found(write, tmp_path):
    path = write("a.yaml", "_BASE_: link.yaml\n")
    os.symlink(path, tmp_path / "link.yaml")
    assert "form a circle" in refused(path)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("[b.yaml]", "line 2: _BASE_ must name one file, not ['b.yaml']"),
        ("3", "line 2: _BASE_ must name one file, not 3"),
        ("''", "line 2: _BASE_ must name one file, not ''"),
        ('"b\\0.yaml"', "'b\\x00.yaml' is no file name"),
        ("~nobody-of-that-name/b.yaml", "is no file name"),
        ("x" * 300, "is no file name"),
        ('"\\x1b[2J.yaml"', "There is no file"),
    ],
)
def test_a_base_that_names_no_file_is_refused(write, base, said):
    message = refused(write("a.yaml", f"a: 1\n_BASE_: {base}\n"))
    assert said in message and "\x1b" not in message


def test_a_wrong_base_is_named_with_its_line_and_who_asked(write):
    write("base.yaml", "a: 1\nb: 1:30\n")
    said = refused(write("a.yaml", "_BASE_: base.yaml\n"))
    assert "base.yaml, line 2, column 4 (_BASE_ of " in said and "a.yaml, line 1)" in said
