"""Values as error messages show them: short, and whatever their class does."""

from __future__ import annotations


def shown(value: object) -> str:
    """Show a value on one short line."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a user's class, or a number too long to be written
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:97]}..."
