"""From results to tables, and from tables to CSV, Markdown, LaTeX and the HTML page."""
