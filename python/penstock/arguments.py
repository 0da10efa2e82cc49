"""What is said of arguments that a call does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def unknown(
    call: str, given: Collection[str], known: Collection[str], meant: Mapping[str, str] | None = None
) -> TypeError | None:
    """The error for the first argument that is not known, with the one that was probably meant; None if all are.

    Args:
        call: what was called.
        given: the names that it was given.
        known: the names that it has.
        meant: what other names for the same are called here.
    """
    for name in given:
        if name not in known:
            import difflib  # only for who has made a mistake

            near = difflib.get_close_matches(name, known, 1)
            guess = (meant or {}).get(name) or (near[0] if near else None)
            hint = f"did you mean {guess!r}?" if guess else f"it has {', '.join(known)}"
            return TypeError(f"{call}() has no argument {name!r}; {hint}")
    return None
