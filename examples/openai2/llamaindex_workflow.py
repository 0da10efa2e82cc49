"""LlamaIndex, a workflow over an index: the last step of tutorials on rate limits.

A workflow fans a question out into many, and each `query` makes several calls: an embedding for the question, and one
or more answers. A limit around `query` counts one where the provider counts two, in parallel steps all at once. The
gate sits below, and counts calls. (Tutorials build it on `ReActAgent.from_tools` and `ServiceContext`, which are gone;
this is today's equivalent, with `Workflow` and `Settings`.)
"""

import asyncio

from _llamaindex import embedding, llm
from _provider import REQUESTS, TOKENS, provider
from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step

import penstock
from penstock import Limiter

DOCUMENTS = [Document(text=f"Report {number}: the sea was low.") for number in range(30)]
QUESTIONS = [f"What does report {number} say?" for number in range(25)]


class Question(Event):
    """One of many."""

    text: str


class Answered(Event):
    """Its answer, or what went wrong."""

    ok: bool


class Research(Workflow):
    """Asks all questions in parallel, and counts the answers."""

    def __init__(self, index: VectorStoreIndex) -> None:
        super().__init__(timeout=120)
        self.engine = index.as_query_engine()

    @step
    async def ask(self, ctx: Context, _start: StartEvent) -> Question | None:
        """Fan out."""
        for text in QUESTIONS:
            ctx.send_event(Question(text=text))
        return None

    @step(num_workers=30)
    async def answer(self, question: Question) -> Answered:
        """Answer one question: an embedding and a completion."""
        try:
            await self.engine.aquery(question.text)
        except Exception:  # noqa: BLE001  whatever the provider's refusal has become
            return Answered(ok=False)
        return Answered(ok=True)

    @step
    async def count(self, ctx: Context, answered: Answered) -> StopEvent | None:
        """Fan in."""
        answers = ctx.collect_events(answered, [Answered] * len(QUESTIONS))
        return None if answers is None else StopEvent(result=sum(not one.ok for one in answers))


async def research() -> int:
    """Index the documents and ask; give how many questions failed."""
    index = VectorStoreIndex.from_documents(DOCUMENTS)
    return await Research(index).run()


def configure(where: dict[str, str], retries: int) -> None:
    """Set the models that everything uses."""
    Settings.embed_model = embedding(where, max_retries=retries)
    Settings.llm = llm(where, max_retries=retries)


def as_it_was() -> None:
    """Run it with nothing in front of the provider, and no retries, which would take minutes."""
    with provider(refusals=True) as where:
        configure(where, retries=0)
        failed = asyncio.run(research())
    print(f"as it was: {failed} of {len(QUESTIONS)} questions failed")


def with_one_line() -> None:
    """Run it through a gate."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS, concurrency=16)
    with provider(refusals=False) as where:
        configure(where, retries=3)
        penstock.govern(Settings, gate)  # the one line
        failed = asyncio.run(research())
    print(f"governed: {failed} of {len(QUESTIONS)} questions failed")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
