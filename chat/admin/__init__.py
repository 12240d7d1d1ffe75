"""The log, where staff read and stop what runs, and the keys that they revoke."""

from chat.admin import api_keys, conversations, responses, users

__all__ = ["api_keys", "conversations", "responses", "users"]
