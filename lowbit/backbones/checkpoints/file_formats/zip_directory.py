"""Find the members of a zip archive without unpacking any: they are stored as they are, or refused."""

import struct
import zlib
from dataclasses import dataclass

from lowbit.backbones.checkpoints.file_formats.memory_budget import MemoryBudget
from lowbit.backbones.checkpoints.file_formats.refusals import DamagedError, RefusedError
from lowbit.common.text import printable

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s4B4H3L5H2L")
_LOCAL = struct.Struct("<4s2B4H3L2H")
_ENCRYPTED = 1
_FAR = 0xFFFFFFFF  # "see the 64-bit field"
_ENTRY_COST = 1000  # bytes of a member in memory


@dataclass(frozen=True)
class Member:
    """A member of an archive.

    Attributes:
        data: its bytes, a view of the archive's.
        crc: CRC-32 that the archive states.
    """

    data: memoryview
    crc: int


def members(archive: memoryview, budget: MemoryBudget) -> dict[str, Member]:
    """Return the members of an archive by name.

    Raises:
        DamagedError: it is cut short or contradicts itself.
        RefusedError: a member is compressed or encrypted, or there are too many.
    """
    count, start, end = _directory(archive)
    found: dict[str, Member] = {}
    left, at = len(archive), start
    for _ in range(count):
        budget.take(_ENTRY_COST)
        name, member, at = _entry(archive, at, end)
        left -= len(member.data)
        if name in found or left < 0:
            raise DamagedError(f"its member {printable(name)} is there twice")
        found[name] = member
    return found


def check(found: dict[str, Member]) -> bool:
    """Compare every member with its checksum; return whether the archive has any.

    Raises:
        DamagedError: one differs.
    """
    if not any(member.crc for member in found.values()):
        return False  # torch.serialization.set_crc32_options(False)
    for name, member in found.items():
        if zlib.crc32(member.data) != member.crc:
            raise DamagedError(f"the checksum of {printable(name)} is wrong")
    return True


def _directory(archive: memoryview) -> tuple[int, int, int]:
    """Return the number of entries, where the first begins, and where the last ends."""
    tail_start = max(0, len(archive) - _END.size - 0xFFFF)  # a comment may follow
    at = tail_start + bytes(archive[tail_start:]).rfind(b"PK\5\6")
    if at < tail_start:
        raise DamagedError("the end of the archive is missing")
    _, _, _, _, count, size, start, _ = _END.unpack_from(archive, at)
    locator = at - _LOCATOR_64.size
    if locator >= 0 and archive[locator : locator + 4] == b"PK\6\7":
        _, _, end_64, _ = _LOCATOR_64.unpack_from(archive, locator)
        *_, count, size, start = _END_64.unpack_from(archive, end_64)
    if start + size > at:
        raise DamagedError("the archive's directory is cut short")
    return count, start, start + size


def _entry(archive: memoryview, at: int, end: int) -> tuple[str, Member, int]:
    """Return an entry's name, its member, and where the next entry begins."""
    fields = _ENTRY.unpack_from(archive, at)
    mark, flags, method, crc = fields[0], fields[5], fields[6], fields[9]
    packed, length, named, extra, comment = fields[10:15]
    local = fields[-1]
    rest = at + _ENTRY.size
    following = rest + named + extra + comment
    if mark != b"PK\1\2" or following > end:
        raise DamagedError("the archive's directory is damaged")
    name = bytes(archive[rest : rest + named]).decode("utf-8", "backslashreplace")
    if method or flags & _ENCRYPTED:
        raise RefusedError(
            f"holds the {'encrypted' if flags & _ENCRYPTED else 'compressed'} member "
            f"{printable(name)}, which no checkpoint has: torch.save stores its tensors as they are",
            "Unpack the archive, and pack it again without compression.",
        )
    length, packed, local = _far(
        archive[rest + named : rest + named + extra], length, packed, local
    )
    mark, *_, named, extra = _LOCAL.unpack_from(archive, local)
    first = local + _LOCAL.size + named + extra
    if mark != b"PK\3\4" or packed != length or first + length > len(archive):
        raise DamagedError(f"its member {printable(name)} is cut short")
    return name, Member(archive[first : first + length], crc), following


def _far(extra: memoryview, *fields: int) -> list[int]:
    """Return the fields of an entry, those that need 64 bits from its extra field."""
    numbers: list[int] = []
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            numbers = list(struct.unpack_from(f"<{min(size, 24) // 8}Q", extra, at + 4))
        at += 4 + size
    return [numbers.pop(0) if value == _FAR else value for value in fields]
