"""What goes wrong beside an environment."""

from __future__ import annotations


class Refused(Exception):
    """Something the user can set right: a wrong id, a missing key, an action of another width. No episode's bad luck.

    `what` says at which point: "make", "view", "action", "expert" or "call".
    """

    def __init__(self, what: str, text: str) -> None:
        super().__init__(text)
        self.what = what


def described(error: BaseException) -> str:
    """An exception on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
