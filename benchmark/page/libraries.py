"""The two JavaScript libraries of the page, as their Python packages carry them."""

from base64 import b64encode
from functools import cache
from importlib.resources import files

from plotly.offline import get_plotlyjs


@cache
def datatables_module() -> str:
    """Return DataTables (an ES module whose default export it is) as base64, for a `data:` import.

    It is the bundle that itables embeds in notebooks; base64 keeps anything in it from ending the
    script element it is written into.
    """
    return b64encode(files("itables").joinpath("html", "dt_bundle.js").read_bytes()).decode()


@cache
def plotly_script() -> str:
    """Return plotly.js for a script element."""
    source = get_plotlyjs()
    assert "</script" not in source.lower()
    return source
