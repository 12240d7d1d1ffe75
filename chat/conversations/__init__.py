"""Conversations as trees: the turns that lead to a prompt."""
