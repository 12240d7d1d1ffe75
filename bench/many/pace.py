"""How requests come: so many clients that each wait for their answer, or arrivals at a rate."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence

from bench.many.answers import Answer
from bench.many.conversations import Conversation

Turn = dict[str, str]  # role and content
Ask = Callable[[str, list[Turn]], Awaitable[Answer]]  # the answer's name, the turns so far


async def closed(ask: Ask, conversations: Iterable[Conversation], clients: int) -> list[Answer]:
    """Each client takes the next conversation when its last one is over."""
    answers: list[Answer] = []
    line = iter(conversations)

    async def client() -> None:
        for conversation in line:
            answers.extend(await talk(ask, conversation))

    await asyncio.gather(*(client() for _ in range(clients)))
    return answers


async def arriving(ask: Ask, conversations: Sequence[Conversation], rate: float) -> list[Answer]:
    """Conversations begin at random, so many per second on average, whoever is still waiting."""
    pick = random.Random(len(conversations))
    talks = []
    for conversation in conversations:
        talks.append(asyncio.ensure_future(talk(ask, conversation)))
        await asyncio.sleep(pick.expovariate(rate))
    return [answer for answers in await asyncio.gather(*talks) for answer in answers]


async def talk(ask: Ask, conversation: Conversation) -> list[Answer]:
    """All turns of a conversation; it ends where an answer fails."""
    turns: list[Turn] = []
    answers: list[Answer] = []
    for number, text in enumerate(conversation.says, 1):
        turns.append({"role": "user", "content": text})
        answer = await ask(f"{conversation.name}.{number}", list(turns))
        answers.append(answer)
        if answer.trouble:
            break
        turns.append({"role": "assistant", "content": answer.text})
    return answers
