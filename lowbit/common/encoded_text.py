"""Decode the text of files that other programs wrote, with or without a byte order mark."""

import codecs
import json

from lowbit.common.text import brief

_OF_NAMES = ("idna", "punycode")  # of domains: decoding takes the square of their length


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
            raise ValueError(f"there is no encoding {brief(declared)}") from error
        if encoding.startswith(("utf-16", "utf-32")):
            encoding = "utf-8"  # what the bytes say; .NET declares utf-16 whatever it writes
    try:
        if encoding in _OF_NAMES:
            raise LookupError(encoding)
        return data.decode(encoding)
    except LookupError as error:  # Python calls compression and the like encodings too
        raise ValueError(f"{brief(encoding)} is no encoding of files") from error
