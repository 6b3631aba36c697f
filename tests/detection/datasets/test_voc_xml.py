"""VOC's XML: every encoding that annotation programs write, and the line of every object."""

import pytest

from lowbit.detection.datasets.voc_xml import line_of, parse, text_of

BODY = """<annotation>
  <filename>{name}.jpg</filename> <!-- <object> -->
  <object>
    <name>{name}</name>
  </object>

  <object><name>b</name><note>&lt;object&gt;</note></object>
</annotation>
"""


def written(file, name, *, encoding, declared=None, bom=b""):
    head = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else "\n"
    file.write_bytes(bom + (head + BODY.format(name=name)).lstrip("\n").encode(encoding))
    return file


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("katze", {"encoding": "utf-8"}),
        ("Kätzchen", {"encoding": "utf-8"}),
        ("Kätzchen", {"encoding": "utf-8-sig", "declared": "utf-8"}),
        ("Kätzchen", {"encoding": "latin-1", "declared": "ISO-8859-1"}),
        ("кот", {"encoding": "cp1251", "declared": "windows-1251"}),
        ("猫", {"encoding": "gbk", "declared": "GBK"}),
        ("猫", {"encoding": "shift_jis", "declared": "Shift_JIS"}),
        ("猫", {"encoding": "utf-16", "declared": "utf-16"}),
        ("猫", {"encoding": "utf-16-be", "bom": b"\xfe\xff"}),
        ("猫", {"encoding": "utf-16-le"}),
        ("猫", {"encoding": "utf-8", "declared": "utf-16"}),  # as .NET declares it
    ],
)
def test_a_name_is_read_in_its_encoding_and_found_on_its_line(tmp_path, name, options):
    file = written(tmp_path / "a.xml", name, **options)
    objects = list(parse(file).iter("object"))
    assert [text_of(obj, "name") for obj in objects] == [name, "b"]
    first = 3 + ("declared" in options)
    assert line_of(file, 0) == f"{file}:{first}" and line_of(file, 1) == f"{file}:{first + 4}"
    assert line_of(file, None) == f"{file}:1"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"encoding": "latin-1"}, r"a\.xml:1: this is not text in its encoding.*encoding="),
        ({"encoding": "utf-8", "declared": "klingon"}, r"there is no encoding 'klingon'"),
    ],
)
def test_what_has_no_known_encoding_is_refused(tmp_path, options, told):
    with pytest.raises(ValueError, match=told):
        parse(written(tmp_path / "a.xml", "Kätzchen", **options))
