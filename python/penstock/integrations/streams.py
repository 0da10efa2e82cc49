"""What reads the usage in an answer as it passes, and gives the permit back at its end, whatever that is."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from penstock import _core
from penstock.failures import verdict_of
from penstock.integrations.forgotten import Stream

if TYPE_CHECKING:
    from penstock._core import Attempts, Permit, Verdict
    from penstock.integrations.exchange import Exchange
    from penstock.integrations.wire import Headers

_KIND, _ENCODING = len(b"content-type"), len(b"content-encoding")
#: Of these the headers of an answer tell what it used, or whose it is.
_TOLD_BY_HEADERS = frozenset({"bedrock", "unknown"})
#: What the last event of a stream says: SDKs close a stream after it, before its end.
_LAST = (b"[DONE]", b"message_stop")
#: Bytes in which that is looked for.
_ENDING = 128


class Meter(Stream):
    """Reads an answer as it passes: its usage, an error in it, its end.

    The end of an answer is that of its call: what that used is settled, and the permit goes back, once. A meter that is
    dropped with its answer ends it, too.
    """

    __slots__ = (
        *(
            "_attempts",
            "_blind",
            "_call",
            "_decode",
            "_ended",
            "_exchange",
            "_filter",
            "_label",
            "_last",
            "_limiter",
            "_permit",
        ),
        *("_reader", "json", "strips"),
    )

    def __init__(self, exchange: Exchange, headers: Headers) -> None:
        super().__init__()
        encoding, kind = b"", b""
        for name, value in headers:
            # Only these two are as long, among what providers send: a loop over twenty names is to be quick.
            if len(name) == _KIND and name.lower() == b"content-type":
                kind = value.lower()
            elif len(name) == _ENCODING and name.lower() == b"content-encoding":
                encoding = value
        #: Whether the answer is one piece of JSON, which is read at once.
        self.json = b"json" in kind and b"ndjson" not in kind and b"jsonl" not in kind and b"stream" not in kind
        self._ended = False
        self._exchange: Exchange | None = exchange
        self._limiter = exchange.limiter
        self._call = exchange.call
        self._label = exchange.label
        self._permit: Permit | None = exchange.permit
        self._attempts: Attempts | None = None
        told = headers if exchange.provider in _TOLD_BY_HEADERS else None
        self._reader = _core.UsageReader(exchange.provider, exchange.call.model, kind.decode("latin-1"), told)
        self._decode = None if encoding in {b"", b"identity"} else exchange.wire.decoder(headers)
        #: Whether nobody here can read the answer: its compression is not known.
        self._blind = self._decode is None and encoding not in {b"", b"identity"}
        if self._blind:
            self._decode = _nothing
        self._filter = _core.UsageFilter() if exchange.asking and not self._blind else None
        #: Whether what is handed on is no longer compressed, though the answer's headers say so.
        self.strips = self._filter is not None and self._decode is not None
        self._last = b""

    def take_over(self) -> None:
        """The answer is a stream: its end gives back what the call holds."""
        if self._exchange is not None:
            self._permit, self._attempts = self._exchange.hand_over()
            self._exchange = None
            if not self._ended:
                self.watch()

    def wait(self) -> None:
        """Somebody waits for the next bytes of the body."""
        self.reading, self.looks = True, 0

    def feed(self, chunk: bytes) -> bytes:
        """Take in the next bytes of the body; give those to hand on."""
        self.reading = False
        plain = chunk
        if self._decode is not None:
            try:
                plain = self._decode(chunk)
            except Exception:
                if self.strips:
                    raise
                self._decode, self._blind, plain = _nothing, True, b""  # whoever reads it will hear of it
        self._reader.feed(plain)
        if self._exchange is None and not self._ended and self._reader.verdict() is not None:
            self._finish(whole=False)  # an error is the last that comes, and SDKs that raise it may keep the stream
        if self._filter is None:
            self._last = (self._last + plain)[-_ENDING:] if len(plain) < _ENDING else plain[-_ENDING:]
            return chunk
        self._last = plain[-_ENDING:] or self._last
        return self._filter.feed(plain)

    def verdict(self) -> Verdict | None:
        """What an error inside of the answer means; None if there was none."""
        return self._reader.verdict()

    def end(self) -> bytes:
        """The body is over. Gives what is left to hand on."""
        self._finish(whole=True)
        return b"" if self._filter is None else self._filter.end()

    def drop(self) -> None:
        """The answer is given to nobody: its call goes on, or ends, without it."""
        self._ended = True
        self._permit = self._exchange = None

    def close(self) -> None:
        """Nobody reads on."""
        if not self._ended:
            self._finish(whole=any(mark in self._last for mark in _LAST))

    def fail(self, error: BaseException) -> None:
        """The connection broke while the body was read, or the task was cancelled."""
        if self._ended:
            return
        if self._exchange is not None:  # which hears of it, and may try again
            self.drop()
            return
        verdict = verdict_of(error)
        if verdict is not None:
            self._limiter.heed(verdict, self._permit)
        self._finish(whole=False)

    def __del__(self) -> None:
        if not self._ended:
            # Python may be ending, and what this needs be gone.
            with contextlib.suppress(Exception):
                self.close()

    def _finish(self, *, whole: bool) -> None:
        if self._ended:
            return
        self._ended = True
        self.unwatch()
        permit, attempts = self._permit, self._attempts
        self._permit = self._attempts = self._exchange = None
        try:
            if permit is not None:
                self._settle(permit, whole)
        finally:
            if attempts is not None:
                attempts.end()
                if permit is not None:
                    if self._label is not None:
                        self._limiter.count_label(self._label, permit)
                    permit.release()

    def _settle(self, permit: Permit, whole: bool) -> None:
        wrong = self._reader.verdict()
        if wrong is not None:
            self._limiter.heed(wrong, permit)
        if not self._limiter.counts:
            return
        reader, call = self._reader, self._call
        used = reader.cost()
        if used is None:
            if self._blind or not call.generates:
                return
            # Nobody reported anything: what was streamed is counted, and the input stays as it was estimated.
            scale, _ = self._limiter.expect(call.model, reader.provider)
            cost = call.cost(reader.provider, reader.estimate(), scale)
        else:
            cost = call.settled(reader.provider, used)
            if whole:
                self._limiter.learn(call, reader)
        if whole:
            permit.settle(cost.tokens, cost.input_tokens, cost.output_tokens)
        else:
            # What the provider has made beyond what was read, nobody knows: nothing is refunded.
            held = permit.cost
            permit.settle(
                max(cost.tokens, held.tokens),
                max(cost.input_tokens, held.input_tokens),
                max(cost.output_tokens, held.output_tokens),
            )


def _nothing(_: bytes) -> bytes:
    return b""
