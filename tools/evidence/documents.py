"""Parts of documents that are made of docs/evidence, between comments that say which part it is.

<!-- evidence: claims -->                       every claim that was tried
<!-- evidence: verdicts -->                     the claims decided, as a list
<!-- evidence: scores pocket_ssql linear -->    the scores of a suite under a protocol
...
<!-- end of evidence -->
"""

import re
from pathlib import Path

from lowbit.tools.evidence.score_tables import score_table
from lowbit.tools.evidence.verdict_tables import claims_table, trials_of, verdict_list

_PART = re.compile(
    r"(?P<head>^ *<!-- evidence: (?P<what>[^\n]*?) -->\n).*?(?P<end>^ *<!-- end of evidence -->$)",
    re.MULTILINE | re.DOTALL,
)


def updated(text: str, evidence: Path) -> str:
    """Return a document with its parts made anew of the results in a folder.

    Raises:
        ValueError: a comment asks for what there is not.
    """
    return _PART.sub(lambda m: f"{m['head']}{make(m['what'], evidence)}\n{m['end']}", text)


def make(what: str, evidence: Path) -> str:
    """Make one part, by the words of its comment."""
    kind, *rest = what.split()
    if kind == "claims" and not rest:
        return "\n" + claims_table(trials_of(evidence)) + "\n"
    if kind == "verdicts" and not rest:
        return verdict_list(trials_of(evidence))
    if kind == "scores" and len(rest) == 2:
        suite, protocol = rest
        return "\n" + score_table(evidence / suite, protocol) + "\n"
    raise ValueError(
        f"there is no part {what!r} of a document; nothing was changed. Write claims, verdicts, or "
        "scores SUITE PROTOCOL."
    )
