"""Ask an llmsite and print the answer while it comes: `python ask.py PROMPT [IDEMPOTENCY_KEY]`.

LLMSITE_URL and LLMSITE_KEY say where, and in whose name. Python 3.9 or newer and nothing else.
Ends with 0 when the answer is whole, 1 when it failed or the server stayed away, 2 when the
server refused the request.
"""

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator

URL = os.environ.get("LLMSITE_URL", "http://127.0.0.1:8000").rstrip("/")
KEY = os.environ.get("LLMSITE_KEY", "")
SILENCE = 45  # seconds after which a connection is dead: the server says something every 15
PATIENCE = 600  # seconds of waiting without a piece of text; a model may take minutes to load
LATER = {409, 429, 502, 503, 504}  # statuses with which the same request may succeed later


class Failed(Exception):
    """The response ended without its whole text."""


def ask(prompt: str, name: str, show: Callable[[str], object]) -> str:
    """Give each piece of the answer to `show` once; how it ended. name: the idempotency key."""
    cursor = ""  # the id of the last event that came whole: RESPONSE:CHARACTERS
    tries = waited = 0
    while True:
        wait = min(10, 0.25 * (1 + tries**2))
        try:
            with urllib.request.urlopen(request(prompt, name, cursor), timeout=SILENCE) as stream:
                for event, data, behind in events(stream, cursor):
                    cursor = behind
                    if event == "message":
                        show(json.loads(data)["text"])
                        tries = waited = 0
                    elif event == "done":
                        return json.loads(data)["finish_reason"]
                    elif event == "error" and '"internal_error"' not in data:
                        raise Failed(json.loads(data)["detail"])
            lost = "the stream was cut"
        except urllib.error.HTTPError as error:
            if error.code not in LATER:
                raise
            lost, wait = f"status {error.code}", max(wait, retry_after(error))
        except (OSError, http.client.HTTPException) as error:
            lost = str(error) or type(error).__name__
        tries, waited = tries + 1, waited + wait
        if waited > PATIENCE:
            raise Failed(f"{lost}; the same request with the key {name} goes on later")
        print(f"[{lost}; again in {wait} s]", file=sys.stderr)
        time.sleep(wait)


def request(prompt: str, name: str, cursor: str) -> urllib.request.Request:
    """Come back behind the cursor. Without one ask, again too: the name joins what was begun."""
    headers = {"Authorization": f"Bearer {KEY}"}
    if cursor:
        response, after = cursor.split(":")
        path = f"{URL}/api/responses/{response}/events?after={after}"
        return urllib.request.Request(path, headers=headers)
    headers |= {"Content-Type": "application/json", "Idempotency-Key": name}
    body = json.dumps({"prompt": prompt, "stream": True}).encode()
    return urllib.request.Request(f"{URL}/chat/new/message/", body, headers)


def events(stream: Iterable[bytes], cursor: str) -> Iterator[tuple[str, str, str]]:
    """Name, data and id of each event that comes whole; what is cut off is nothing."""
    name, data = "message", []
    for line in stream:  # bytes up to a line's end, so that no character is torn
        if not line.endswith(b"\n"):
            return
        field, _, value = line.decode().rstrip("\r\n").partition(":")
        value = value[1:] if value.startswith(" ") else value
        if line.rstrip(b"\r\n") == b"":  # an empty line ends an event
            if data:
                yield name, "\n".join(data), cursor
            name, data = "message", []
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            cursor = value


def retry_after(error: urllib.error.HTTPError) -> int:
    """Seconds that the server, or a proxy, wants us to wait."""
    after = error.headers.get("Retry-After", "")
    return int(after) if after.isdecimal() else 0


def why(error: urllib.error.HTTPError) -> str:
    """What a refusal says: problem details (RFC 9457), which name the field."""
    try:
        return json.load(error)["detail"]
    except (ValueError, LookupError, TypeError):
        return error.reason


def main() -> int:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    # A name of your own, kept with what you ask for, finds the answer also after a crash of yours.
    name = sys.argv[2] if len(sys.argv) == 3 else str(uuid.uuid4())
    try:
        ended = ask(sys.argv[1], name, lambda text: print(text, end="", flush=True))
    except urllib.error.HTTPError as error:
        print(f"Refused with {error.code}: {why(error)}", file=sys.stderr)
        return 2
    except Failed as error:
        print(f"\nFailed: {error}", file=sys.stderr)
        return 1
    print()
    if ended != "stop":  # `length`: max_tokens were not enough; `cancelled`: somebody stopped it
        print(f"[{ended}]", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
