"""LlamaIndex, uncontrolled ingestion: 300 documents, embedded ten at a time, as fast as they can be sent.

The article's `VectorStoreIndex.from_documents` no longer floods a provider by itself: a current LlamaIndex embeds a
hundred texts per request, one request after another. It does with small batches in parallel (`use_async`), as below:
the burst is refused, and its retries, up to a hundred for each request, hit the same closed door all at once. With one
line added no request is refused, and none is sent twice.
"""

from _llamaindex import embedding
from _provider import REQUESTS, TOKENS, provider
from llama_index.core import Document, VectorStoreIndex

import penstock
from penstock import Limiter

SMALL = {"embed_batch_size": 10, "num_workers": 40}
DOCUMENTS = [Document(text=f"Document {number}: the sea was low.") for number in range(300)]


def as_it_was() -> None:
    """Ingest with nothing in front of the provider."""
    with provider(refusals=True) as where:
        VectorStoreIndex.from_documents(DOCUMENTS, embed_model=embedding(where, **SMALL), use_async=True)
    print("as it was: all were embedded in the end, after requests that were refused")


def with_one_line() -> None:
    """Ingest through a gate."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS, concurrency=16)
    with provider(refusals=False) as where:
        model = penstock.govern(embedding(where, **SMALL), gate)  # the one line
        VectorStoreIndex.from_documents(DOCUMENTS, embed_model=model, use_async=True)
    print("governed: all were embedded, each with one request")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
