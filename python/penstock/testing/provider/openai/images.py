"""Images: counted as requests alone, since OpenAI has a quota of images per minute for them."""

# ruff: noqa: D102 - the methods are documented in Call

from __future__ import annotations

from typing import TYPE_CHECKING

from ..dialect import Call, encode
from ..tokens import estimate
from .body import integer, text

if TYPE_CHECKING:
    from ..prompt import JSONObject

__all__ = ["Images", "read_images"]

# A white pixel.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4//8/AwAI/AL+p5qgoAAAAABJRU5ErkJggg=="


class Images(Call):
    """One or more pictures."""

    def __init__(self, request: JSONObject, count: int, tokens_in: int) -> None:
        self.model = request.get("model") or "gpt-image-1"
        self._count = count
        self.tokens_in = tokens_in
        self.cost = {"requests": count}

    def answer(self, number: int, created: int) -> bytes:  # noqa: ARG002 - pictures have no id
        usage = {"input_tokens": self.tokens_in, "output_tokens": 0, "total_tokens": self.tokens_in}
        return encode({"created": created, "data": [{"b64_json": PIXEL}] * self._count, "usage": usage})


def read_images(request: JSONObject) -> Images:
    """Check a request for images, and count the images."""
    prompt = text(request, "prompt", "Missing required parameter: 'prompt'.")
    return Images(request, integer(request, "n", maximum=10) or 1, estimate(len(prompt)))
