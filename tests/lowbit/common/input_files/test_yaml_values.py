"""YAML as data: numbers of 1.2's core schema, bounds, and the line of what is refused."""

from pathlib import Path

import pytest
import yaml

from lowbit.common.input_files import yaml_values
from lowbit.common.input_files.yaml_bases import load_file
from lowbit.common.input_files.yaml_values import NotYamlError, parse

ROOT = Path(__file__).parents[4]
SHIPPED = [*sorted((ROOT / "configs").rglob("*.yaml")), ROOT / "benchmark/published/tables.yaml"]


def _reference_yaml_1_1(text):
    """What PyYAML reads, with the one change that files here relied on: 1e-3 is a number."""

    class Loader(yaml.SafeLoader):
        pass

    number = yaml_values.re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    return yaml.load(text, Loader)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_file_has_the_values_that_it_had_in_yaml_1_1(file):
    text = file.read_text(encoding="utf-8")
    found, known = parse(text).value, _reference_yaml_1_1(text)
    assert found == known and repr(found) == repr(known)  # the order of keys and the types, too


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-12", -12),
        ("+3", 3),
        ("010", 10),
        ("0o10", 8),
        ("0xfF", 255),
        ("9223372036854775807", 2**63 - 1),
        ("1e-3", 1e-3),
        ("1E+5", 1e5),
        ("2.5e-4", 2.5e-4),
        (".5", 0.5),
        ("1.", 1.0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("4w4a", "4w4a"),
        ("1e-3x", "1e-3x"),
        ("1.2.3", "1.2.3"),
        ("y", "y"),
        ("nO", "nO"),
        ("'yes'", "yes"),
        ('"1:30"', "1:30"),
        ("!!str 010", "010"),
        ("{<<: {a: 1, b: 2}, b: 3}", {"a": 1, "b": 3}),
        ("{<<: [{a: 1}, {a: 2, b: 2}]}", {"a": 1, "b": 2}),
    ],
)
def test_values_are_those_of_yaml_1_2(text, value):
    found = parse(f"- {text}\n").value[0]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1:30", "1:30 is a number or a date in YAML 1.1 alone"),
        ("1:30.5", "YAML 1.1 alone"),
        ("1_000", "YAML 1.1 alone"),
        ("1_000.5", "YAML 1.1 alone"),
        ("0b11", "YAML 1.1 alone"),
        ("-0x1F", "YAML 1.1 alone"),
        ("2026-01-31", "YAML 1.1 alone"),
        ("2026-01-31T10:00:00Z", "YAML 1.1 alone"),
        ("yes", "write true or false"),
        ("Off", "write true or false"),
        ("=", "quote it"),
        (".inf", "no finite number"),
        ("-.INF", "no finite number"),
        (".nan", "no finite number"),
        ("1e999", "no finite number"),
        ("9223372036854775808", "does not fit in 64 bits"),
        ("9" * 5000, "does not fit in 64 bits"),
        ("0x" + "f" * 5000, "does not fit in 64 bits"),
        ("{[1]: 2}", r"the key \[1\] is not text"),
        ("{{a: 1}: 2}", "is not text"),
        ("{4: 2}", "the key 4 is not text; quote it"),
        ("{true: 2}", "the key True is not text"),
        ("{a: 1, a: 2}", "'a' is given twice"),
        ("!!python/name:os.system x", "the tag !!python/name:os.system is not read"),
        ("!!int 3", "the tag !!int is not read"),
        ("!!set {a}", "the tag !!set is not read"),
        ("&a [*a]", r"\*a contains itself"),
        ("*b", "no anchor &b"),
        ("{<<: 3}", "takes a mapping"),
        ("[1", "expected"),
        ("\x01", "control characters are not allowed"),
        ("'a\\", "end of stream"),
    ],
)
def test_what_is_refused_has_its_line(text, said):
    with pytest.raises(NotYamlError, match=said) as caught:
        parse(f"a: 1\nb:\n- {text}\n")
    assert caught.value.line in (3, 4)  # 4: where the file ends too early
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


def test_half_a_character_and_a_second_document_are_refused():
    with pytest.raises(NotYamlError, match="characters that are none"):
        parse("\udcff")
    with pytest.raises(NotYamlError, match="line 3: a second document"):
        parse("a: 1\n\n--- b\n")


def test_nesting_has_a_bound(monkeypatch):
    monkeypatch.setattr(yaml_values, "MAX_NESTING", 5)
    assert parse("[[[[[1]]]]]").value == [[[[[1]]]]]
    for deep in ("[[[[[[1]]]]]]", "{a: [{b: [{c: [1]}]}]}", "- - - - - - 1"):
        with pytest.raises(NotYamlError, match="line 1: more than 5 levels"):
            parse(deep)


def test_aliases_count_as_what_they_stand_for_before_anything_walks_them(monkeypatch):
    monkeypatch.setattr(yaml_values, "MAX_VALUES", 30)
    lists = "a: &a [x, x]\nb: &b [*a, *a]\n"  # 2 keys, 3 values; 7 values
    assert parse(lists).value["b"] == [["x", "x"], ["x", "x"]]
    with pytest.raises(NotYamlError, match=r"line 4: there are more than 30 values"):
        parse(f"{lists}c: &c [*b, *b]\nd: [*c, *c]\n")
    merged = "a: &a {k: x, l: x}\nb: &b {m: *a, n: *a}\n"
    with pytest.raises(NotYamlError, match=r"more than 30 values"):
        parse(f"{merged}c: {{<<: [*b, *b, *b]}}\n")


def test_aliases_do_not_share_what_they_stand_for():
    found = parse("a: &a {x: [1]}\nb: *a\n").value
    found["a"]["x"].append(2)
    assert found["b"] == {"x": [1]}


def test_the_lines_of_the_keys_at_the_top_are_told():
    assert parse("# header\na: {b: 1}\n\n'c d': 2\n").lines == {"a": 2, "c d": 4}


def test_no_shipped_file_is_near_a_bound():
    for file in SHIPPED:
        load_file(file)
        assert file.stat().st_size < 100_000
