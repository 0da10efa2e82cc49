"""Models of LangChain that speak HTTP by the standard library alone: no client that could be governed."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import LLM, BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

if TYPE_CHECKING:
    from collections.abc import Iterator

ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}


def post(base_url: str, path: str, body: dict[str, Any]):
    request = urllib.request.Request(
        base_url + path,
        json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": "Bearer any"},
    )
    return urllib.request.urlopen(request, timeout=30)


def usage_metadata(usage: dict[str, int]) -> dict[str, int]:
    sent, received = usage["prompt_tokens"], usage["completion_tokens"]
    return {"input_tokens": sent, "output_tokens": received, "total_tokens": sent + received}


class PlainChat(BaseChatModel):
    base_url: str
    model: str = "plain-chat"
    max_tokens: int | None = None

    @property
    def _llm_type(self) -> str:
        return "plain"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "max_tokens": self.max_tokens}

    def _body(self, messages, **more: Any) -> dict[str, Any]:
        said = [{"role": ROLES[message.type], "content": message.content} for message in messages]
        body = {"model": self.model, "messages": said, **more}
        return body if self.max_tokens is None else {**body, "max_tokens": self.max_tokens}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs: Any) -> ChatResult:
        with post(self.base_url, "/chat/completions", self._body(messages)) as response:
            answer = json.load(response)
        text = answer["choices"][0]["message"]["content"]
        message = AIMessage(text, usage_metadata=usage_metadata(answer["usage"]))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        body = self._body(messages, stream=True, stream_options={"include_usage": True})
        with post(self.base_url, "/chat/completions", body) as response:
            for line in response:
                data = line.strip().removeprefix(b"data: ")
                if not data or data == b"[DONE]":
                    continue
                chunk = json.loads(data)
                used = chunk.get("usage")
                text = "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
                message = AIMessageChunk(text, usage_metadata=usage_metadata(used) if used else None)
                yield ChatGenerationChunk(message=message)

    def bind_tools(self, tools, **kwargs: Any):
        return self.bind(tools=tools, **kwargs)


class PlainCompletion(LLM):
    base_url: str

    @property
    def _llm_type(self) -> str:
        return "plain-completion"

    def _call(self, prompt, stop=None, run_manager=None, **kwargs: Any) -> str:
        body = {"model": "plain-completion", "messages": [{"role": "user", "content": prompt}]}
        with post(self.base_url, "/chat/completions", body) as response:
            return json.load(response)["choices"][0]["message"]["content"]


class PlainEmbeddings(Embeddings):
    def __init__(self, base_url: str) -> None:
        self.base_url = base_url

    def embed_documents(self, texts):
        with post(self.base_url, "/embeddings", {"model": "plain-embeddings", "input": texts}) as response:
            return [item["embedding"] for item in json.load(response)["data"]]

    def embed_query(self, text):
        return self.embed_documents([text])[0]
