"""Tokens without a tokenizer: four characters each, both ways, so that a test can compute what a request costs."""

from __future__ import annotations

__all__ = ["CHARACTERS_PER_TOKEN", "estimate", "filler"]

CHARACTERS_PER_TOKEN = 4

# Words of three letters and a space: a token each.
WORDS = "the sea was low and the old men let all the ice out for one dry day but not two "


def estimate(characters: int) -> int:
    """Tokens of a text of so many characters: a quarter, rounded up, and at least 1."""
    return max(1, -(-characters // CHARACTERS_PER_TOKEN))


def filler(start: int, stop: int) -> str:
    """Tokens ``start`` to ``stop`` of an endless text, four characters each: sent back, n tokens count as n."""
    first = start * CHARACTERS_PER_TOKEN
    length = (stop - start) * CHARACTERS_PER_TOKEN
    offset = first % len(WORDS)
    return (WORDS * ((offset + length) // len(WORDS) + 1))[offset : offset + length]
