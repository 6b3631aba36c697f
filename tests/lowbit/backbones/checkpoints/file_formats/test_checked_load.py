"""Files that this suite writes for itself: whole, of plain values, without torch's advice."""

import enum
import io
import zipfile

import pytest
import torch

from lowbit.backbones.checkpoints.file_formats.checked_load import load_checked
from lowbit.backbones.checkpoints.file_formats.refusals import (
    DamagedError,
    ForeignClassError,
    RefusedError,
)
from tests.lowbit.backbones.checkpoints.file_formats.hostile_files import saved

STATE = {"step": 3, "network": {"w": torch.arange(3.0)}, "optimizer": {0: (1, [2.5, None, "a"])}}


def test_what_was_saved_comes_back(tmp_path):
    (tmp_path / "x.pth").write_bytes(saved(STATE))
    for source in (tmp_path / "x.pth", saved(STATE)):
        found = load_checked(source)
        assert found["network"]["w"].equal(STATE["network"]["w"])
        assert found["optimizer"] == STATE["optimizer"] and found["step"] == 3


def test_a_class_is_named_and_torchs_advice_is_not_passed_on():
    with pytest.raises(ForeignClassError, match=r"names enum\.Flag, which is neither") as caught:
        load_checked(saved({"x": enum.Flag}))
    assert "weights_only" not in str(caught.value) and "safe_globals" not in str(caught.value)


def test_damaged_compressed_and_other_files_are_refused(tmp_path):
    good = saved(STATE)
    damaged = bytearray(good)
    damaged[good.index(STATE["network"]["w"].numpy().tobytes())] ^= 1
    for content in (b"", b"hello", good[:-100], bytes(damaged), saved(STATE, zipped=False)):
        (tmp_path / "x.pth").write_bytes(content)
        with pytest.raises(DamagedError):
            load_checked(tmp_path / "x.pth")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (source := zipfile.ZipFile(io.BytesIO(good))).namelist():
            archive.writestr(name, source.read(name))
    with pytest.raises(RefusedError, match="compressed"):
        load_checked(packed.getvalue())


def test_tensors_may_share_their_memory():
    base = torch.zeros(1000)
    assert len(load_checked(saved([base.view(10, -1) for _ in range(2000)]))) == 2000
