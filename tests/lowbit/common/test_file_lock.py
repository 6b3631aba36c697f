"""Whoever comes second waits, and a dead holder holds nothing."""

import multiprocessing
import os
import time

from lowbit.common.file_lock import exclusive_lock, lock_if_free

CONTEXT = multiprocessing.get_context("fork")


def _append(folder, mark, together):
    together.wait()
    with exclusive_lock(folder / "lock", "the list"), (folder / "list").open("a") as file:
        for _ in range(50):
            file.write(mark)
            file.flush()


def test_one_at_a_time(tmp_path):
    together = CONTEXT.Barrier(3)
    others = [CONTEXT.Process(target=_append, args=(tmp_path, m, together)) for m in "abc"]
    for other in others:
        other.start()
    for other in others:
        other.join()
    written = (tmp_path / "list").read_text()
    assert sorted(written[i : i + 50] for i in (0, 50, 100)) == [m * 50 for m in "abc"]


def _die_holding(lock):
    with exclusive_lock(lock, "nothing"):
        os._exit(1)


def test_a_holder_that_died_is_not_waited_for(tmp_path):
    holder = CONTEXT.Process(target=_die_holding, args=(tmp_path / "lock",))
    holder.start()
    holder.join()
    assert holder.exitcode == 1  # without releasing it
    asked = time.monotonic()
    with exclusive_lock(tmp_path / "lock", "something"):
        assert time.monotonic() - asked < 10


def _remove_while_holding(lock, together):
    with exclusive_lock(lock, "the file"):
        together.wait()
        time.sleep(0.1)  # the other comes to wait for it
        lock.unlink()


def test_a_lock_that_its_holder_removed_is_made_anew(tmp_path):
    lock, together = tmp_path / "lock", CONTEXT.Barrier(2)
    holder = CONTEXT.Process(target=_remove_while_holding, args=(lock, together))
    holder.start()
    together.wait()
    with exclusive_lock(lock, "the file"):
        assert lock.exists()
        with lock_if_free(lock) as free:
            assert not free
    with lock_if_free(lock) as free:
        assert free
    holder.join()
