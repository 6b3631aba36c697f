"""The leaderboard as one HTML file that opens offline.

A section is a function from a `Source` to plain JSON, a template (its static frame) and a script that
draws the JSON into it; `render.SECTIONS` lists them. Tables are DataTables', charts plotly's.
Both libraries and the results stand packed in the file, nothing is ever fetched: a content security
policy in the file forbids it.
"""
