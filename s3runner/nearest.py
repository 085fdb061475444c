"""Guessing what a mistyped word was meant to be. Apart, so that `--help` needs no parser for it."""

from __future__ import annotations

from collections.abc import Collection


def did_you_mean(wrong: str, known: Collection[str]) -> str:
    """Return ` (did you mean 'x'?)`, or nothing where nothing comes near."""
    import difflib  # noqa: PLC0415  # most words are right

    near = difflib.get_close_matches(wrong, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
