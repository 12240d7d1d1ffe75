"""What can go wrong in the model host. A leaf: it imports nothing of ours."""

from __future__ import annotations


class ModelHostError(Exception):
    """Base of every error that this package raises on purpose."""


class NotReady(ModelHostError):
    """No model can answer yet; asking again later is right."""


LONGEST_SENTENCE = 1000  # characters: what went wrong stands at the beginning of a sentence
ADVICE = 200  # and what to do about it at its end


class LoadFailed(ModelHostError):
    """The model could not be loaded. The text is one sentence that says what to do.

    What a folder's files call things may be part of it. Whatever that is, it stays one line of a
    bounded length that every encoding can take.
    """

    def __init__(self, sentence: str) -> None:
        line = "".join(letter if letter.isprintable() else " " for letter in sentence)
        if len(line) > LONGEST_SENTENCE:
            line = f"{line[: LONGEST_SENTENCE - ADVICE]} … {line[-ADVICE:]}"
        super().__init__(line)


class Busy(ModelHostError):
    """As many generations as allowed are running or waiting."""


class GenerationFailed(ModelHostError):
    """The engine gave up on a generation that it had accepted."""


class RequestRefused(ModelHostError):
    """A request that this model cannot serve; nothing was started."""


class PromptTooLong(RequestRefused):
    """The prompt, or the prompt with the answer asked for, exceeds the context."""


class BadTurns(RequestRefused):
    """The model's chat format refuses these turns."""


class BadTools(BadTurns):
    """The model's chat format knows no tools."""


class BadSampling(RequestRefused):
    """A sampling parameter is out of range; `field` names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def first_line(error: BaseException) -> str:
    """A library's error as a part of one of our sentences, without its full stop.

    Where the first line only announces what is wrong, the next one is appended; a KeyError, whose
    text is the key alone, gets its name.
    """
    first, *rest = (str(error).strip() or type(error).__name__).splitlines()
    if rest and first.rstrip().endswith(":"):
        first = f"{first.rstrip()} {rest[0].strip()}"
    if isinstance(error, KeyError):
        first = f"KeyError {first}"
    return first.rstrip(" .:!")
