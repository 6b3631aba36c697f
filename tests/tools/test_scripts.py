"""The scripts of tools/ and the command are the same functions, and their help waits for nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from lowbit.benchmark.cli import COMMANDS, main

TOOLS = Path(__file__).parents[2] / "tools"
SCRIPTS = {"run": "run_all", "detect": "train_net"}  # others are named as their command
WITHOUT = {"claims"}  # in a checkout `python -m lowbit claims`; tools/ has its twelve files
HEAVY = {"torch", "numpy", "pandas", "pydantic", "yaml"}


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_every_command_has_a_script_and_every_script_a_command():
    named = {SCRIPTS.get(command, command) for command in COMMANDS if command not in WITHOUT}
    assert named == {path.stem for path in TOOLS.glob("[!_]*.py")}


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in WITHOUT])
def test_help_of_a_script_names_it_and_imports_nothing_heavy(command):
    path = TOOLS / f"{SCRIPTS.get(command, command)}.py"
    code = (
        f"import runpy, sys; sys.argv[:] = [{str(path)!r}, '--help']\n"
        f"try: runpy.run_path({str(path)!r}, run_name='__main__')\n"
        f"except SystemExit as stop: assert not stop.code\n"
        f"assert not {HEAVY!r} & sys.modules.keys(), {HEAVY!r} & sys.modules.keys()"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {path.name} ")
    assert f"  lowbit-bench {command} " in done.stdout


def test_help_of_the_command_lists_the_subcommands_whose_help_is_as_quick():
    code = (
        "import sys; from lowbit.benchmark.cli import COMMANDS, main\n"
        "main(['--help'])\n"
        "for name in COMMANDS:\n"
        "    try: main([name, '--help'])\n"
        "    except SystemExit as stop: assert not stop.code\n"
        f"assert not {HEAVY!r} & sys.modules.keys(), {HEAVY!r} & sys.modules.keys()"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout and f"usage: lowbit-bench {name} " in done.stdout


@pytest.mark.parametrize("verb", ["check", "status"])
def test_run_all_takes_two_verbs_beside_a_suite(verb):
    words = [sys.executable, str(TOOLS / "run_all.py"), verb, "--help"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith(f"usage: run_all.py {verb} ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu", "demo"], "there is no command 'rnu'; nothing was run. Did you mean 'run'?"),
        ([], "no command was given; nothing was run. Commands: run, "),
    ],
)
def test_an_unknown_command_is_answered_with_those_there_are(words, said, capsys):
    assert main(words) == 2
    assert said in capsys.readouterr().err
