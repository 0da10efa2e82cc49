"""What reads the usage in an answer as it passes, and gives the permit back at its end, whatever that is."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from penstock import _core
from penstock.failures import verdict_of
from penstock.forgotten import Stream

if TYPE_CHECKING:
    from penstock._core import Attempts, Permit, UsageReader, Verdict
    from penstock.integrations.exchange import Exchange
    from penstock.integrations.wire import Headers

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
        *("_reader", "strips"),
    )

    def __init__(self, exchange: Exchange, answer: UsageReader, headers: Headers) -> None:
        super().__init__()
        self._ended = False
        self._exchange: Exchange | None = exchange
        self._limiter = exchange.limiter
        self._call = exchange.call
        self._label = exchange.label
        self._permit: Permit | None = exchange.permit
        self._attempts: Attempts | None = None
        self._reader = answer
        self._decode = exchange.wire.decoder(headers) if answer.encoding else None
        #: Whether nobody here can read the answer: its compression is not known.
        self._blind = self._decode is None and bool(answer.encoding)
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
                _core.settle_answer(self._limiter, self._call, self._reader, permit, whole, self._blind)
        finally:
            if attempts is not None:
                attempts.end()
                if permit is not None:
                    if self._label is not None:
                        self._limiter.count_label(self._label, permit)
                    permit.release()


def _nothing(_: bytes) -> bytes:
    return b""
