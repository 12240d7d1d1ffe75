"""The rows: what was said (`record`), and who may say it (`access`)."""

from chat.models.access import ApiKey, IdempotencyKey
from chat.models.record import Conversation, Prompt, Response, shorten

__all__ = ["ApiKey", "Conversation", "IdempotencyKey", "Prompt", "Response", "shorten"]
