"""Any backbone checkpoint, every bit-width, every task, one board."""

from pathlib import Path

# In a checkout, benchmark/, detection/, pretrain/, transfer/ and tools/ stand beside this folder, not
# in it. An installed package has them inside, and no setup.py beside it.
_checkout = Path(__file__).parents[1]
if (_checkout / "setup.py").is_file():
    __path__.append(str(_checkout))
