"""Processes of one job: they learn who they are, and their end is the command's."""

import os

import pytest

from lowbit.benchmark.executors.launch_processes import launch


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 1, os.EX_TEMPFAIL])
def test_the_code_of_the_processes_is_the_code_of_the_command(code):
    assert launch(int, str(code), processes=2) == code


@pytest.mark.slow
def test_each_process_finds_its_rank_where_torchrun_puts_it(tmp_path):
    script = f"echo $RANK $LOCAL_RANK $WORLD_SIZE > {tmp_path}/$RANK"
    assert launch(os.system, script, processes=2) == 0
    found = [(tmp_path / str(rank)).read_text().split() for rank in range(2)]
    assert found == [["0", "0", "2"], ["1", "1", "2"]]


@pytest.mark.slow
def test_one_that_dies_ends_the_others(capfd):
    code = (
        "import os, time\nos.kill(os.getpid(), 9) if os.environ['RANK'] == '1' else time.sleep(600)"
    )
    assert launch(exec, code, processes=2) == 1
    assert "--resume" in capfd.readouterr().err
