"""What a reader found worth telling about a study that it could read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Remark:
    """One remark; ``m2net verify`` shows it as a warning unless it is ``harmless``.

    Attributes:
        check: short name of what was looked at, as ``spacing`` or ``series``.
        text: one sentence: what was found and what was done.
        remedy: what the user can do about it.
        harmless: nothing to act on (a choice that follows a stated rule).
    """

    check: str
    text: str
    remedy: str = ""
    harmless: bool = False

    def __str__(self) -> str:
        """The sentence."""
        return self.text
