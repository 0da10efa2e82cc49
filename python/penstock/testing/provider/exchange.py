"""One request and its answer: counted, admitted or refused, answered at once or as a stream, or struck by a fault."""

from __future__ import annotations

import asyncio
import time
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from penstock import _core

from .dialect import Incoming, Problem
from .fault import FAULT_HEADER, Fault, Faults
from .log import Arrival, ArrivalLog
from .policy import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .dialect import Call, Dialect
    from .dialects import Dialects
    from .latency import Latency, NetworkJitter
    from .quotas import Quotas

__all__ = ["Desk", "Exchange"]

NOT_JSON = b'<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>{"'
NOT_EVENTS = b'data: {"id": "chatcmpl-\xff\n\n<html>502 Bad Gateway</html>\n\n'
# zlib's name for a gzip container.
WINDOW_BITS = {"gzip": 31, "deflate": 15}


def clock() -> int:
    """Nanoseconds on the limiters' clock, so that `virtual_time` moves quotas, too."""
    return round(_core.clock_now() * NANOSECONDS)


@dataclass
class Desk:
    """What all exchanges of a provider share."""

    dialects: Dialects
    quotas: Quotas
    faults: Faults
    latency: Latency
    network: NetworkJitter
    chunks: int
    log: ArrivalLog = field(default_factory=ArrivalLog)
    started: int = 0
    """When the provider started, in nanoseconds of `clock`."""

    def now(self) -> int:
        """Nanoseconds since the provider started."""
        return clock() - self.started

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request."""
        body = await request.content.read()  # not request.read(), which stops at a megabyte
        delay = self.network.draw()
        if delay:
            await asyncio.sleep(delay)
        return await Exchange(self, request, body).run()


class Exchange:
    """One request and its answer, from the moment at which it is counted."""

    def __init__(self, desk: Desk, request: web.BaseRequest, body: bytes) -> None:
        self._desk = desk
        self._request = request
        self._arrived = desk.now()
        self._incoming = Incoming(request.method, request.path, request.headers, body, request.query)
        self._dialect: Dialect = desk.dialects.of(request.path, request.headers)
        self._arrival = Arrival(
            time=self._arrived / NANOSECONDS,
            endpoint=request.path,
            key=self._dialect.key(self._incoming),
            attempt=_attempt(request.headers),
            dialect=self._dialect.name,
        )
        desk.log.arrive(self._arrival, self._arrived)
        self._number = desk.log.sent
        self._quota_headers: dict[str, str] = {}
        self._faults: dict[str, Fault] = {}
        self._over = False

    async def run(self) -> web.StreamResponse:
        """Read, count, and answer."""
        try:
            call = self._dialect.read(self._incoming)
            self._strike(call)
        except Problem as problem:
            if problem.model is not None:
                self._arrival.model = problem.model
                if problem.counts:
                    self._desk.quotas.of(problem.model).fail(self._arrived)
            return self._fail(problem)
        self._arrival.model, self._arrival.stream = call.model or None, call.stream
        self._arrival.requests = call.cost.get("requests", 0)
        self._arrival.tokens = call.cost.get("tokens", 0)
        refusing = next((fault for fault in self._faults.values() if fault.refuses), None)
        if refusing is not None:
            return self._fail(self._dialect.fault(refusing, call.model))
        if not call.cost:
            return self._give_free(call)
        return await self._admit(call)

    def _strike(self, call: Call) -> None:
        """Find what goes wrong with this request."""
        header = self._incoming.headers.get(FAULT_HEADER)
        try:
            found = self._desk.faults.befalling(
                self._number, self._arrived / NANOSECONDS, call.model, header if call.cost else None
            )
        except ValueError as error:
            message = f"The header {FAULT_HEADER} makes no sense: {error}."
            raise self._dialect.bad_wish(message, call.model) from None
        if call.cost:  # what is free is left alone
            self._faults = {fault.kind: fault for fault in found}
            self._arrival.fault = ",".join(self._faults) or None

    def _give_free(self, call: Call) -> web.Response:
        self._desk.log.free()
        self._arrival.status = 200
        self._desk.log.finish(self._arrival, self._desk.now())
        return web.Response(body=call.answer(self._number, int(time.time())), headers=self._headers(call.answer_type))

    async def _admit(self, call: Call) -> web.StreamResponse:
        quota = self._desk.quotas.of(call.model)
        refusal = quota.admit(call.cost, self._arrived)
        self._quota_headers = self._dialect.quota_headers(quota.levels(self._arrived), time.time())
        if refusal is not None:
            self._desk.log.refuse(self._arrival, refusal.dimension, refusal.wait)
            return self._fail(self._dialect.refuse(call, refusal))
        self._desk.log.admit(self._arrival)
        try:
            if call.stream:
                response = await self._stream(call)
            else:
                response = await self._answer(call)
        except (asyncio.CancelledError, ConnectionError):
            # Who closed the connection is told by the log: a fault, or else the client.
            self._finish(disconnected="drop" not in self._faults and "half" not in self._faults)
            raise
        self._complete(call)
        return response

    def _complete(self, call: Call) -> None:
        """Close the books on a call: before its last bytes are out, so that whoever has its answer finds it counted."""
        if self._over:
            return
        self._finish()
        if self._dialect.settles:
            reserved = call.cost.get("tokens", 0)
            quota = self._desk.quotas.of(call.model)
            quota.settle("tokens", reserved, call.used, self._arrived, self._desk.now())
            self._desk.log.settle(call.used - reserved)

    def _finish(self, *, disconnected: bool = False) -> None:
        if not self._over:
            self._over = True
            self._desk.log.finish(self._arrival, self._desk.now(), disconnected=disconnected)

    def _fail(self, problem: Problem) -> web.Response:
        headers = self._headers("application/json")
        headers.update(problem.headers)
        body = self._packed(problem.body, headers)
        self._arrival.status = problem.status
        self._finish()
        return web.Response(status=problem.status, body=body, headers=headers)

    def _headers(self, content_type: str) -> dict[str, str]:
        milliseconds = (self._desk.now() - self._arrived) // 1_000_000
        headers = self._dialect.headers(self._number, milliseconds)
        headers.update(self._quota_headers)
        headers["content-type"] = content_type
        return headers

    def _encoding(self) -> str | None:
        return next((name for name in WINDOW_BITS if name in self._faults), None)

    def _packed(self, body: bytes, headers: dict[str, str]) -> bytes:
        """Compress a body if it is to be, and say so."""
        encoding = self._encoding()
        if encoding is None:
            return body
        headers["content-encoding"] = encoding
        packer = zlib.compressobj(wbits=WINDOW_BITS[encoding])
        return packer.compress(body) + packer.flush()

    async def _delay(self) -> None:
        slow = self._faults.get("slow")
        if slow is not None:
            await asyncio.sleep(slow.seconds)

    def _close(self) -> None:
        """Close the connection once what was written is out."""
        if self._request.transport is not None:
            self._request.transport.close()

    async def _answer(self, call: Call) -> web.StreamResponse:
        latency = self._desk.latency.draw()
        if latency:
            await asyncio.sleep(latency)
        await self._delay()
        if "drop" in self._faults:
            self._spend(call, 1.0)
            self._close()
            return web.Response(status=500)  # for the server's own book-keeping: no one gets it
        body = call.answer(self._number, int(time.time()))
        if "malformed" in self._faults:
            body = NOT_JSON
        headers = self._headers(call.answer_type)
        body = self._packed(body, headers)
        self._arrival.status, self._arrival.tokens_in = 200, call.tokens_in
        self._spend(call, 1.0)
        if "half" in self._faults:
            headers["content-length"] = str(len(body))
            response = web.StreamResponse(headers=headers)
            await response.prepare(self._request)
            await response.write(body[: len(body) // 2])
            self._close()
            return response
        return web.Response(body=body, headers=headers)

    def _spend(self, call: Call, share: float) -> None:
        """Count the output so far, up to ``share`` of all of it, where output is counted as it is made."""
        made = int(call.tokens_out * share)
        self._desk.quotas.of(call.model).debit("output_tokens", made - self._arrival.tokens_out, self._desk.now())
        self._arrival.tokens_out = max(made, self._arrival.tokens_out)

    async def _stream(self, call: Call) -> web.StreamResponse:
        events = call.events(self._number, int(time.time()), self._desk.chunks)
        interval = self._desk.latency.draw() / len(events)
        events = self._broken(call, events)
        await self._delay()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        writer: _Writer | None = None
        for index, event in enumerate(events):
            # Due times are counted from the beginning, so that late wakes do not add up.
            due = begun + interval * (index + 1) - loop.time()
            if due > 0:
                await asyncio.sleep(due)
            if writer is None:
                if "drop" in self._faults:
                    break
                writer = await self._open(call)
            self._spend(call, (index + 1) / len(events))
            if index + 1 == len(events):
                self._complete(call)
            await writer.write(event)
        if writer is None or "half" in self._faults:
            self._close()
            return web.Response(status=500) if writer is None else writer.response
        await writer.end()
        return writer.response

    def _broken(self, call: Call, events: list[bytes]) -> list[bytes]:
        """What becomes of a stream's events when something is wrong with it."""
        breaking = next(
            (self._faults[kind] for kind in ("half", "short", "overloaded_event") if kind in self._faults), None
        )
        if breaking is not None:
            kept = len(events) // 2 if breaking.after is None else breaking.after
            events = events[: max(kept, 0 if breaking.kind == "overloaded_event" else 1)]
            if breaking.kind == "overloaded_event":
                events = [*events, self._dialect.overloaded_event(call)]
        return [NOT_EVENTS] if "malformed" in self._faults else events

    async def _open(self, call: Call) -> _Writer:
        headers = self._headers(call.stream_type)
        headers["cache-control"] = "no-cache"
        encoding = self._encoding()
        if encoding is not None:
            headers["content-encoding"] = encoding
        response = web.StreamResponse(headers=headers)
        await response.prepare(self._request)
        self._arrival.status, self._arrival.tokens_in = 200, call.tokens_in
        return _Writer(response, encoding)


class _Writer:
    """Writes the pieces of a stream, compressed or not; each is out, and can be unpacked, when it was written."""

    def __init__(self, response: web.StreamResponse, encoding: str | None) -> None:
        self.response = response
        self._packer = None if encoding is None else zlib.compressobj(wbits=WINDOW_BITS[encoding])

    async def write(self, piece: bytes) -> None:
        if self._packer is not None:
            piece = self._packer.compress(piece) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        await self.response.write(piece)

    async def end(self) -> None:
        if self._packer is not None:
            await self.response.write(self._packer.flush())
        await self.response.write_eof()


def _attempt(headers: Mapping[str, str]) -> int | None:
    """How many retries there were before, as the SDKs made with Stainless say."""
    text = headers.get("x-stainless-retry-count", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
