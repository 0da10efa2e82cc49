"""Models without an HTTP client that could be governed: a permit around the methods which every model implements.

The model's class becomes a twin of itself that differs in these methods alone: name, module, fields, isinstance, tools,
structured output and cache keys stay as they were.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.llms import LLM, BaseLLM

from penstock.integrations.langchain.calls import Call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from penstock.integrations.gate import Gatekeeper

_GATEKEEPER = "_penstock_gatekeeper"
_twins: WeakKeyDictionary[type, type] = WeakKeyDictionary()

#: The methods that reach the provider, and those that most models do without: LangChain looks whether they are there.
_METHODS: tuple[tuple[type, tuple[str, ...], tuple[str, ...]], ...] = (
    (
        BaseChatModel,
        ("_generate", "_agenerate"),
        ("_stream", "_astream", "_stream_chat_model_events", "_astream_chat_model_events"),
    ),
    (LLM, ("_call", "_acall"), ("_stream", "_astream")),
    (BaseLLM, ("_generate", "_agenerate"), ("_stream", "_astream")),
    (Embeddings, ("embed_documents", "embed_query", "aembed_documents", "aembed_query"), ()),
)
_NAMES = ("model", "model_name", "model_id", "deployment_name")


def govern(model: Any, gatekeeper: Gatekeeper) -> None:
    """Govern the methods of a model."""
    ungovern(model)
    object.__setattr__(model, "__class__", _twin(type(model)))
    model.__dict__[_GATEKEEPER] = gatekeeper


def ungovern(model: Any) -> None:
    """Give a model its class back."""
    if model.__dict__.pop(_GATEKEEPER, None) is not None:
        object.__setattr__(model, "__class__", type(model).__mro__[1])


def _twin(kind: type) -> type:
    """A class like this one, whose methods wait for a permit."""
    twin = _twins.get(kind)
    if twin is None:
        needed, others = next((needed, others) for base, needed, others in _METHODS if issubclass(kind, base))
        bases = tuple(base for base, _, _ in _METHODS)
        # A method that only LangChain's own base class has says that the model cannot do this.
        has = [name for name in others if any(name in vars(at) for at in kind.__mro__ if at not in bases)]
        body: dict[str, Any] = {name: _governed(kind, name) for name in (*needed, *has)}
        body |= {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        body |= {"__reduce_ex__": _reduce}
        twin = _twins[kind] = type(kind)(kind.__name__, (kind,), body)
    return twin


def _governed(kind: type, name: str) -> Callable[..., Any]:
    """A method that waits for a permit, in the shape that LangChain calls it in."""
    method = getattr(kind, name)

    def begin(model: Any, prompt: Any, kwargs: dict[str, Any]) -> Call | None:
        keeper: Gatekeeper = model.__dict__[_GATEKEEPER]
        named = _model(model, kwargs)
        limiter = keeper.pick(named)
        what = f"{kind.__module__}.{kind.__qualname__} {named}"
        return None if limiter is None else Call(keeper, limiter, what, prompt=prompt, settings=kwargs, bounds=model)

    def function(self: Any, prompt: Any, *args: Any, **kwargs: Any) -> Any:
        call = begin(self, prompt, kwargs)
        if call is None:
            return method(self, prompt, *args, **kwargs)
        with call:
            return call.limited(method, tasks=False)(_bare(self, kind), prompt, *args, **kwargs)

    async def coroutine(self: Any, prompt: Any, *args: Any, **kwargs: Any) -> Any:
        call = begin(self, prompt, kwargs)
        if call is None:
            return await method(self, prompt, *args, **kwargs)
        with call:
            return await call.limited(method, tasks=True)(_bare(self, kind), prompt, *args, **kwargs)

    def generator(self: Any, prompt: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        call = begin(self, prompt, kwargs)
        if call is None:
            yield from method(self, prompt, *args, **kwargs)
            return
        with call:
            yield from call.limited(method, tasks=False)(_bare(self, kind), prompt, *args, **kwargs)

    async def async_generator(self: Any, prompt: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        call = begin(self, prompt, kwargs)
        if call is None:
            async with contextlib.aclosing(method(self, prompt, *args, **kwargs)) as stream:
                async for chunk in stream:
                    yield chunk
            return
        with call:
            limited = call.limited(method, tasks=True)(_bare(self, kind), prompt, *args, **kwargs)
            async with contextlib.aclosing(limited) as stream:
                async for chunk in stream:
                    yield chunk

    shape: Callable[..., Any]
    if "stream" in name:
        shape = async_generator if name.startswith("_a") else generator
    else:
        shape = coroutine if name.lstrip("_").startswith("a") else function
    return functools.wraps(method)(shape)


def _bare(model: Any, kind: type) -> Any:
    """The model as it was, with the same state: what one of its methods calls of its others is the same call."""
    bare: Any = object.__new__(kind)
    object.__setattr__(bare, "__dict__", model.__dict__)
    for name in ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
        if hasattr(model, name):
            object.__setattr__(bare, name, getattr(model, name))
    return bare


def _model(model: Any, kwargs: dict[str, Any]) -> str | None:
    """The name that the provider knows the model by."""
    given = [kwargs.get("model"), *(getattr(model, name, None) for name in _NAMES)]
    return next((name for name in given if isinstance(name, str)), None)


def _reduce(self: Any, protocol: Any) -> tuple[Any, ...]:  # noqa: ARG001  it is what `__reduce_ex__` is given
    """Pickles and copies name the model's class, not the twin, which has no name of its own; they stay governed."""
    state = self.__getstate__() if hasattr(self, "__getstate__") else dict(self.__dict__)
    return _restore, (type(self).__mro__[1],), state


def _restore(kind: type) -> Any:
    twin: Any = _twin(kind)
    return twin.__new__(twin)
