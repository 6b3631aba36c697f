"""Text in the encodings that editors and annotation programs write."""

import pytest

from lowbit.common.encoded_text import decode_text

TEXT = "a\nüber 猫\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_unicode_is_told_by_its_first_bytes(encoding):
    for declared in (None, "utf-8", "utf-16", "latin-1"):
        if encoding != "utf-8" or declared != "latin-1":
            assert decode_text(TEXT.encode(encoding), declared=declared) == TEXT
    assert decode_text("".encode(encoding)) == ""


def test_other_encodings_have_to_be_declared():
    data = "über".encode("latin-1")
    assert decode_text(data, declared="ISO-8859-1") == "über"
    for declared in (None, "utf-8", "utf-16", "klingon"):
        with pytest.raises(ValueError, match=r"decode|klingon"):
            decode_text(data, declared=declared)
