"""The leaderboard as one HTML file that opens offline.

A section is a module with `content(source)` (plain JSON), a template (its static frame) and a script
that draws the content into it; `render.SECTIONS` lists them. Tables are DataTables', charts plotly's.
Both libraries and the results stand packed in the file, nothing is ever fetched: a content security
policy in the file forbids it.
"""

from lowbit.benchmark.leaderboard.page.render import render
from lowbit.benchmark.leaderboard.page.source import Source

__all__ = ["Source", "render"]
