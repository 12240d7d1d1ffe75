"""The rows: what was said (`record`), who may say it (`access`), how it is judged (`review`)."""

from chat.models.access import ApiKey, IdempotencyKey
from chat.models.record import Conversation, Prompt, Response, shorten
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
