"""The log, where staff read, judge and stop; the keys that they revoke; what they did."""

from chat.admin import actions, api_keys, conversations, responses, users

__all__ = ["actions", "api_keys", "conversations", "responses", "users"]
