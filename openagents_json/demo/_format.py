"""Numbers as a reader wants them; shared by the text and the plot."""

from __future__ import annotations


def percent(fraction: float | None) -> str:
    """Show a fraction from 0 to 1; a dash for None. What is not quite none or all is never rounded to that."""
    if fraction is None:
        return "-"
    if fraction in {0, 1}:
        return f"{fraction:.0%}"
    shown = min(max(100 * fraction, 0.1), 99.9)
    return f"{shown:.0f}%" if 9.95 <= shown < 99 else f"{shown:.1f}%"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Show a number of things: ``1 class``, ``2,000 files``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
