"""Published numbers as rows marked `reported`: shown beside the measured ones, never ranked with them.

`published.csv` holds 1,024 numbers of four papers: results, hyper-parameters (metric `hparam:...`) and
data set statistics (`num_...`). Its first eight columns are a key; `precision` is written as everywhere
here (`4w4a`, `FP`). `notes` opens with where a number was read: `paper` (the text or its supplement) or
`main paper ...` (the main text through another source); `ocr-ambiguous` marks a number whose cell or
label cannot be read beyond doubt, and says why.
"""

from lowbit.benchmark.published.rows import PAPERS, load_published, reported_rows
from lowbit.benchmark.published.selection import Selection, published_scores, select

__all__ = [
    "PAPERS",
    "Selection",
    "load_published",
    "published_scores",
    "reported_rows",
    "select",
]
