"""Environment of Python processes that are started anew and import lowbit."""

import os
import sys


def import_variables() -> dict[str, str]:
    """Return the variables that make a new Python find the modules this one finds, and no others.

    It does not look into its working directory first, where a user's files may have any name.
    """
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
