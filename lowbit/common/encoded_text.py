"""Decode the text of files that other programs wrote, with or without a byte order mark."""

import codecs
import json


def decode_text(data: bytes, *, declared: str | None = None) -> str:
    """Decode text that begins with ASCII characters, as lists of names, JSON and XML do.

    Args:
        data: the text in UTF-8, UTF-16 or UTF-32, told by its first bytes.
        declared: encoding that the text itself names, of those with one byte for an ASCII character.

    Raises:
        ValueError: the bytes are not in that encoding, or there is no such encoding.

    Example:
        >>> decode_text("cat".encode("utf-16")), decode_text(b"\\xef\\xbb\\xbfcat")
        ('cat', 'cat')
    """
    encoding = json.detect_encoding(data)
    if encoding == "utf-8" and declared:
        try:
            encoding = codecs.lookup(declared).name
        except LookupError as error:
            raise ValueError(f"there is no encoding {declared!r}") from error
        if encoding.startswith(("utf-16", "utf-32")):
            encoding = "utf-8"  # what the bytes say; .NET declares utf-16 whatever it writes
    return data.decode(encoding)
