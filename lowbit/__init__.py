"""Benchmark any backbone checkpoint at every bit-width on every task, on one leaderboard."""

from pathlib import Path

# In a checkout, benchmark/, deploy/, detection/, pretrain/, transfer/ and tools/ are next to this folder,
# not in it. An installed package has them inside, and no setup.py next to it.
_checkout = Path(__file__).parents[1]
if (_checkout / "setup.py").is_file():
    __path__.append(str(_checkout))
