"""Environment of child Python processes that import lowbit."""

import os
import sys


def import_variables() -> dict[str, str]:
    """Return the variables that make a child Python find exactly the modules this one finds.

    It does not look into its working directory first, where a user's files may have any name.
    """
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
