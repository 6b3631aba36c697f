"""What is found once in a block: kept until it ends, for its thread, and never an error."""

from threading import Thread

import pytest

from lowbit.common.input_files.found_once import finding_once, once


def counter():
    numbers = iter(range(100))
    return lambda: next(numbers)


def test_without_a_block_everything_is_found_anew():
    find = counter()
    assert [once("a", find), once("a", find)] == [0, 1]


def test_a_block_keeps_what_was_found_under_each_key_and_forgets_it_at_its_end():
    find = counter()
    with finding_once():
        assert [once("a", find), once("b", find), once("a", find)] == [0, 1, 0]
    with finding_once():
        assert once("a", find) == 2
    assert once("a", find) == 3


def test_a_block_that_fails_forgets_too():
    find = counter()
    with pytest.raises(KeyError), finding_once():
        once("a", find)
        raise KeyError
    assert once("a", find) == 1


def test_errors_are_not_kept():
    def missing():
        raise FileNotFoundError

    with finding_once():
        with pytest.raises(FileNotFoundError):
            once("a", missing)
        assert once("a", lambda: "there now") == "there now"


def test_another_thread_looks_for_itself():
    find, seen = counter(), []
    with finding_once():
        once("a", find)
        thread = Thread(target=lambda: seen.append(once("a", find)))
        thread.start()
        thread.join()
    assert seen == [1]


def test_a_block_in_a_block_shares_what_was_found():
    find = counter()
    with finding_once():
        assert once("a", find) == 0
        with finding_once():
            assert [once("a", find), once("b", find)] == [0, 1]
        assert once("b", find) == 1
    assert once("a", find) == 2
