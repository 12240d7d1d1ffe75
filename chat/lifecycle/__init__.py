"""The life of a response: made, followed, written down, and continued by the next process."""
