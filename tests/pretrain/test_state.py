"""State files: the newest few, whole or not there, and a fallback when bytes rot."""

import pytest
import torch

from lowbit.pretrain import state


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def _save(folder, number, keep=3):
    state.save(folder, {"number": number, "weight": torch.full((1000,), number)}, keep=keep)


def test_the_newest_few_are_kept_in_order(tmp_path):
    for number in range(5):
        _save(tmp_path, number)
    assert _names(tmp_path) == ["last.1.pth", "last.2.pth", "last.pth"]
    numbers = [torch.load(state.path_of(tmp_path, age))["number"] for age in range(3)]
    assert numbers == [4, 3, 2]
    _save(tmp_path, 5, keep=1)
    assert _names(tmp_path) == ["last.pth"]


def test_nothing_is_no_state(tmp_path):
    assert state.load(tmp_path) is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_damage_is_passed_over(tmp_path, damage, caplog):
    for number in (1, 2):
        _save(tmp_path, number)
    path = tmp_path / "last.pth"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1  # one bit of a weight
    content = {"cut": content[:-100], "flipped": content, "empty": b"", "text": b"hello"}[damage]
    path.write_bytes(content)
    found, where = state.load(tmp_path)
    assert found["number"] == 1 and where.name == "last.1.pth"
    assert "last.pth is damaged" in caplog.text


def test_a_crash_between_the_renames_leaves_the_newest_of_before(tmp_path, monkeypatch):
    _save(tmp_path, 1)
    monkeypatch.setattr(
        "lowbit.common.atomic_file.os.replace",
        lambda *args: (_ for _ in ()).throw(KeyboardInterrupt),
    )
    with pytest.raises(KeyboardInterrupt):
        _save(tmp_path, 2)
    assert state.load(tmp_path)[0]["number"] == 1


def test_all_damaged_is_an_error_that_names_them(tmp_path):
    for age in range(2):
        state.path_of(tmp_path, age).write_bytes(b"no")
    with pytest.raises(ValueError, match=r"last.pth, .*last.1.pth: none can be read; nothing was"):
        state.load(tmp_path)
