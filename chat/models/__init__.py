"""The rows: what was said, who may say it (`access`), how it is judged (`review`)."""

from chat.models.access import ApiKey, IdempotencyKey
from chat.models.conversation import Conversation
from chat.models.prompt import Prompt
from chat.models.response import Response, shorten
from chat.models.review import Judgement, Verdict, judged

__all__ = [
    "ApiKey",
    "Conversation",
    "IdempotencyKey",
    "Judgement",
    "Prompt",
    "Response",
    "Verdict",
    "judged",
    "shorten",
]
