"""What a call costs, as far as its prompt and its settings tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock._core import estimate_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: What models and providers call their bound of an answer.
_BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "num_predict")


def cost_of(prompt: object, *settings: Any) -> tuple[int, int]:
    """Tokens that are sent, estimated, and the most that may come back; 0 where no setting bounds the answer.

    ``settings`` are mappings, or models with these attributes; the first that bounds it counts.
    """
    bounds = (_get(where, name) for where in settings for name in _BOUNDS)
    received = next((bound for bound in bounds if type(bound) is int and bound > 0), 0)
    return sum(map(estimate_tokens, _texts(prompt))), received


def _get(where: Mapping[str, Any] | object, name: str) -> Any:
    return where.get(name) if isinstance(where, dict) else getattr(where, name, None)


def _texts(prompt: object) -> Iterator[str]:
    """The texts of messages, prompts or documents; no images."""
    if isinstance(prompt, str):
        yield prompt
    elif isinstance(prompt, (list, tuple)):
        for part in prompt:
            yield from _texts(part)
    elif isinstance(prompt, dict):
        yield from _texts(prompt.get("text"))
    elif prompt is not None:
        yield from _texts(getattr(prompt, "content", None))
