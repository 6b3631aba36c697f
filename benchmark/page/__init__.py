"""The leaderboard as one HTML file that opens offline.

Tables are written by the server side of a template (readable without JavaScript) and made sortable by
DataTables; the curves are drawn by plotly. Both libraries stand in the file, nothing is ever fetched:
a content security policy in the file forbids it.
"""

from benchmark.page.render import render

__all__ = ["render"]
