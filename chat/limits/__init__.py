"""How much is taken in at once, and in which order."""
