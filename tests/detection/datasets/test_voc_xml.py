"""VOC's XML: every encoding that annotation programs write, and the line of every object."""

import os

import pytest

from lowbit.detection.datasets.voc_xml import (
    digest,
    line_of,
    parse,
    read_dimensions,
    text_of,
    to_annotation,
)

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
        ({"encoding": "utf-8", "declared": "hex"}, r"'hex' is no encoding of files"),
        ({"encoding": "utf-8", "declared": "zlib"}, r"'zlib' is no encoding of files"),
        ({"encoding": "utf-8", "declared": "punycode"}, r"'punycode' is no encoding of files"),
    ],
)
def test_what_has_no_known_encoding_is_refused(tmp_path, options, told):
    with pytest.raises(ValueError, match=told):
        parse(written(tmp_path / "a.xml", "Kätzchen", **options))


@pytest.mark.parametrize(
    "declared",
    ['<!ENTITY e "text">', '<!ENTITY e SYSTEM "file:///etc/hostname">', '<!ENTITY % e "text">', ""],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_document_type_is_refused_with_its_line(tmp_path, declared, encoding):
    file = tmp_path / "a.xml"
    body = "<annotation><object><name>&e;</name></object></annotation>"
    file.write_text(f"<!-- a -->\n<!DOCTYPE annotation [{declared}]>\n{body}", encoding=encoding)
    with pytest.raises(
        ValueError, match=r"a\.xml:2: it declares a document type.*nothing was loaded"
    ):
        parse(file)


def object_of(corners):
    names = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{name}>{value}</{name}>" for name, value in zip(names, corners, strict=True))
    return f"<object><name>a</name><bndbox>{box}</bndbox></object>"


@pytest.mark.parametrize(
    "wrong", ["", "four", "1_0", "\u0661", "nan", "inf", "1e999", "-2e6", "0x1", "9" * 5000]
)
def test_a_corner_that_is_no_number_of_pixels_is_refused_with_its_line(tmp_path, wrong):
    file = tmp_path / "a.xml"
    file.write_text(f"<annotation>\n{object_of((1, 2, wrong, 4))}\n</annotation>", encoding="utf-8")
    (obj,) = parse(file).iter("object")
    with pytest.raises(ValueError, match=r"a\.xml:2: an object has no box of four numbers"):
        to_annotation(obj, {"a": 1}, base=1, at=(file, 0))


@pytest.mark.parametrize("wrong", ["four", "1_0", "nan", "1e999", "1048577", "9" * 5000])
def test_a_side_that_is_no_number_of_pixels_is_refused_with_its_line(tmp_path, wrong):
    file = tmp_path / "a.xml"
    file.write_text(
        f"<annotation>\n<size><width>{wrong}</width><height>4</height></size></annotation>"
    )
    with pytest.raises(
        ValueError, match=r"a\.xml:2: height '4' and width .* are not two num"
    ) as caught:
        read_dimensions(parse(file), tmp_path / "a.png", file=file)
    assert len(str(caught.value)) < 500


def test_an_annotation_that_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.xml")
    for read in (parse, digest):
        with pytest.raises(
            ValueError, match=r"a\.xml cannot be read as an annotation: it is a named p"
        ):
            read(tmp_path / "a.xml")
