"""What all subcommands share."""

import os
import subprocess
import sys


def test_a_command_whose_output_nobody_reads_ends_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "lowbit", "claims", "docs/evidence"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
