"""What ChatGLM3 says in the tests, as the ids that it would make."""

from __future__ import annotations

from modelhost.chatglm import ChatGLMFormat

PIECES = (
    """你 好 👋 ! 我是 人工智能 助手 _Chat GL M 3 - 6 B , 很高兴 见到 你 , 欢迎 问我 任何 问题 。"""
)
TRANSCRIPT = [piece.replace("_", " ") for piece in PIECES.split()]
END_OF_TEXT = 2


def transcript_ids(chat_format: ChatGLMFormat) -> list[int]:
    """The line that says "plain text", the greeting, and the end."""
    return [
        *chat_format.content_ids("\n"),
        *chat_format.content_ids("".join(TRANSCRIPT)),
        END_OF_TEXT,
    ]


def chatglm_call(chat_format: ChatGLMFormat) -> list[int]:
    """A call as ChatGLM3 writes it: the tool's name, the code, and the wait for the result."""
    return [
        *chat_format.content_ids("get_weather\n"),
        *chat_format.content_ids("```python\ntool_call(city='北京')\n```"),
        chat_format.control_ids["<|observation|>"],
    ]
