"""Mistakes a user can make and mend. Commands print them and exit with status 2.

A message says which setting or file, what was found, what is allowed and how to fix it. Problems
of one kind are collected and raised together, so that one run shows them all.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """One or more mistakes in what the user gave: a setting, a file, a folder."""

    def __init__(self, *problems: str):
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))

    def __reduce__(self) -> tuple:
        """Pickles as its problems, so that one from a loader process arrives whole."""
        return type(self), self.problems


def near_miss(name: str, allowed: Iterable[str], count: int = 3) -> str:
    """A sentence that suggests what `name` may have meant.

    Returns `Did you mean "a" or "b"?`, or the whole list of what is allowed when it is short and
    nothing is near, or an empty string.
    """
    allowed = sorted(allowed)
    folded = {candidate.casefold(): candidate for candidate in allowed}
    near = difflib.get_close_matches(name.casefold(), folded, n=count, cutoff=0.6)
    if near:
        return "Did you mean " + " or ".join(f'"{folded[match]}"' for match in near) + "?"
    if len(allowed) <= 30:
        return "Allowed: " + ", ".join(allowed) + "."
    return ""


def raise_all(problems: list[str]) -> None:
    """Raises one `UserError` with every problem, or nothing when there is none."""
    if problems:
        raise UserError(*problems)
