"""lowbit of this checkout, for the scripts in tools/, in a folder that has nothing else to import.

With the checkout itself on the path, `benchmark`, `detection` and others would be importable bare, in
place of a user's own; so would `datasets`, which is a library's name, with the scripts' folder on it.
"""

import sys
from pathlib import Path

_tools = Path(__file__).resolve().parents[2]
__path__ = [str(_tools.parent / "lowbit"), str(_tools.parent)]
sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != _tools]
