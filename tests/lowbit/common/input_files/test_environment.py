"""Environment variables with values that are none."""

import pytest

from lowbit.benchmark.cli import main
from lowbit.common.input_files.environment import cache_bytes, fused, launcher_number


@pytest.mark.parametrize("text", ["lots", "", "nan", "-1"])
def test_a_wrong_size_of_the_cache_is_refused(monkeypatch, text):
    monkeypatch.setenv("LOWBIT_CACHE_GB", text)
    with pytest.raises(ValueError, match=r"LOWBIT_CACHE_GB is .* no features were computed"):
        cache_bytes()


def test_settings_are_read(monkeypatch):
    for name in ("LOWBIT_CACHE_GB", "LOWBIT_FUSED", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (cache_bytes(), fused(), launcher_number("WORLD_SIZE", 1)) == (64e9, None, 1)
    monkeypatch.setenv("LOWBIT_CACHE_GB", "0.5")
    monkeypatch.setenv("LOWBIT_FUSED", "No")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert (cache_bytes(), fused(), launcher_number("WORLD_SIZE", 1)) == (0.5e9, False, 8)


@pytest.mark.parametrize("text", ["", "two", "-1", "1.5", "9" * 5000])
def test_a_launchers_number_is_one(monkeypatch, text):
    monkeypatch.setenv("WORLD_SIZE", text)
    with pytest.raises(ValueError, match=r"WORLD_SIZE is .* nothing was started"):
        launcher_number("WORLD_SIZE", 1)


def test_a_command_says_which_setting_is_wrong(monkeypatch, capsys):
    monkeypatch.setenv("LOWBIT_FUSED", "maybe")
    assert main(["check", "x.pth"]) == 2
    assert "lowbit-bench: LOWBIT_FUSED is 'maybe'" in capsys.readouterr().err
