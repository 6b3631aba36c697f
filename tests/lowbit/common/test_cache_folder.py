"""Where the cache is, and whose files in it count."""

import os
import stat

import pytest

from lowbit.common.cache_folder import cache_folder, is_private, make_private


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a"))
    assert cache_folder() == tmp_path / "a" / "lowbit-bench"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "lowbit-bench"


def test_a_container_may_have_no_home(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])  # as for a user without a name
    assert cache_folder() is None


@pytest.mark.parametrize(("mode", "private"), [(0o700, 1), (0o755, 1), (0o775, 0), (0o757, 0)])
def test_a_folder_is_made_private(tmp_path, mode, private):
    tmp_path.chmod(mode)
    assert is_private(tmp_path.stat()) == private
    make_private(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == mode & 0o755
    make_private(tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_another_users_folder_is_not_private(tmp_path):
    mine = list(tmp_path.stat())
    for user, private in ((os.geteuid(), True), (0, True), (os.geteuid() + 4321, False)):
        mine[4] = user  # st_uid
        mine[0] = stat.S_IFDIR | 0o755
        assert is_private(os.stat_result(mine)) == private
