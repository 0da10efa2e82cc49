"""One file per library. To add one: write its file, and put its class into `PEERS`, into `RETRYING`, or into both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peerbench.adapters.aiolimiter import AioLimiter
from peerbench.adapters.asynciolimiter import AsyncioLimiter
from peerbench.adapters.floor import Floor
from peerbench.adapters.langchain import LangChain
from peerbench.adapters.limits import Limits
from peerbench.adapters.llamaindex import LlamaIndex
from peerbench.adapters.penstock import Penstock
from peerbench.adapters.pyrate import PyrateLimiter
from peerbench.adapters.semaphore import Semaphore
from peerbench.adapters.stamina import Stamina
from peerbench.adapters.tenacity import Tenacity
from peerbench.adapters.throttled import ThrottledPy

if TYPE_CHECKING:
    from peerbench.peer import Peer

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Floor(),
        Semaphore(),
        Penstock(),
        AioLimiter(),
        AsyncioLimiter(),
        Limits(),
        PyrateLimiter(),
        ThrottledPy(),
        LangChain(),
        LlamaIndex(),
    )
}
"""Every limiter that can be measured, in the order of the report."""

RETRYING: dict[str, Peer] = {peer.name: peer for peer in (PEERS["floor"], PEERS["penstock"], Tenacity(), Stamina())}
"""Everything whose retries can be measured, in the order of the report."""
