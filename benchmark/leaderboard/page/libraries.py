"""The two JavaScript libraries of the page, as their Python packages carry them."""

from importlib.resources import files

from plotly.offline import get_plotlyjs


def datatables_module() -> str:
    """Return DataTables, an ES module whose default export it is: what itables embeds in notebooks."""
    return files("itables").joinpath("html", "dt_bundle.js").read_text(encoding="utf-8")


def plotly_script() -> str:
    """Return plotly.js for a script element."""
    return get_plotlyjs()
