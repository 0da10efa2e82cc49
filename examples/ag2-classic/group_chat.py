"""AG2 0.x and AutoGen 0.2, a group chat: who speaks next is asked of a model, too, by agents that nobody sees.

So a chat of ten rounds makes twenty calls, and a limit around it counts one. A budget counts all of them, and ends a
chat that finds no end.
"""

from _agents import config, quiet, user
from _provider import REQUESTS, TOKENS, provider
from autogen import AssistantAgent, GroupChat, GroupChatManager

import penstock
from penstock import BudgetExceeded, Limiter


def chat(llm_config: dict[str, object], rounds: int) -> None:
    """Have a writer, a critic and an editor talk."""
    names = ("writer", "critic", "editor")
    agents = [AssistantAgent(name, llm_config=llm_config, description=f"The {name}.") for name in names]
    group = GroupChat(agents=agents, messages=[], max_round=rounds, speaker_selection_method="auto")
    manager = GroupChatManager(groupchat=group, llm_config=llm_config, is_termination_msg=lambda _: False)
    with quiet():
        user().initiate_chat(manager, message="Write a line about the sea.", silent=True)


def as_it_was() -> None:
    """Chat until the provider has enough: here, of 30 requests per minute."""
    with provider(refusals=True, requests=30) as where:
        try:
            chat(config(where, max_retries=0), rounds=20)
        except Exception as error:  # noqa: BLE001  whatever ends it
            print(f"as it was: the chat ended with {type(error).__name__}")


def with_one_line() -> None:
    """Chat through a gate, and within a budget."""
    gate = Limiter(requests=REQUESTS, tokens=TOKENS)
    with provider(refusals=False) as where:
        llm_config = penstock.govern(config(where), gate)  # the one line
        chat(llm_config, rounds=6)
        print("governed: the chat came to its end")
        try:
            with penstock.budget(calls=12, tokens=20_000) as spent:  # and one for a chat without end
                chat(llm_config, rounds=10_000)
        except BudgetExceeded as error:
            print(f"governed: the endless chat ended with {error}; {spent.tokens} tokens were used")


if __name__ == "__main__":
    as_it_was()
    with_one_line()
