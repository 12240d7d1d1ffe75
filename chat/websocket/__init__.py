"""The WebSocket: any number of responses through one connection."""
