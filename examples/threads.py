"""Without asyncio: `map` over a pool of threads, `with` around a block, and a call that would rather not wait."""

from _client import MODEL, REQUESTS, TOKENS, client
from openai import OpenAI

from penstock import AcquireTimeout, Limiter

gate = Limiter(requests=REQUESTS, tokens=TOKENS, concurrency=8)
TEXTS = [f"Is this cheerful? Text number {number}." for number in range(30)]


def ask(openai: OpenAI, text: str) -> str:
    """One call; 50 tokens at the most."""
    messages = [{"role": "user", "content": text}]
    response = openai.chat.completions.create(model=MODEL, messages=messages, max_tokens=50)
    return response.choices[0].message.content


def main() -> None:
    """Make thirty calls from a pool of threads, and two more from here."""
    with client() as openai:
        answers = gate.map(lambda text: ask(openai, text), TEXTS, tokens=50, progress=True)
        print(f"{len(answers)} answers")
        with gate.permit(tokens=50) as permit:
            ask(openai, "One more.")
            print(f"one more, after {permit.waited:.2f} s")
        try:
            with gate.permit(tokens=TOKENS, timeout=1):
                ask(openai, "Never asked.")
        except AcquireTimeout as error:
            print(f"not now: a whole minute's tokens are there in {error.retry_after:.0f} s at the earliest")
    print(gate.stats())


if __name__ == "__main__":
    main()
