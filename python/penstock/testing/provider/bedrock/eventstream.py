"""Amazon's event stream: messages of ``application/vnd.amazon.eventstream``, with headers and two checksums."""

from __future__ import annotations

import struct
import zlib

__all__ = ["message"]

STRING = 7  # the type of a header's value


def message(payload: bytes, **headers: str) -> bytes:
    """Write one message; underscores in the names of headers stand for hyphens, and each begins with a colon."""
    head = b""
    for name, value in headers.items():
        key, text = f":{name.replace('_', '-')}".encode(), value.encode()
        head += struct.pack(">B", len(key)) + key + struct.pack(">BH", STRING, len(text)) + text
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + head + payload
    return whole + struct.pack(">I", zlib.crc32(whole))
