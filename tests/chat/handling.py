"""The chat page, as its tests handle it."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, Route, expect

from tests.web import eventually


def ask(page: Page, prompt: str) -> None:
    """Type a prompt and send it."""
    page.get_by_label("Your prompt").fill(prompt)
    page.get_by_label("Your prompt").press("Enter")


def answer(page: Page, index: int = -1) -> Locator:
    """The text of an answer."""
    return page.locator(".turn.assistant .text").nth(index)


def asked(page: Page) -> Locator:
    """The texts of the prompts."""
    return page.locator(".turn.user .text")


def button(page: Page, name: str) -> Locator:
    """A button that can be seen, by its whole name."""
    return page.get_by_role("button", name=name, exact=True)


def edit(page: Page, index: int, text: str) -> None:
    """Ask one of the prompts anew."""
    button(page, "Edit this prompt").nth(index).click()
    field = page.get_by_label("Edit the prompt")
    expect(field).to_be_focused()
    field.fill(text)
    field.press("Enter")


def ended(page: Page) -> None:
    """Wait until nothing waits to be sent, another prompt can be, and the page has heard of its
    model.

    A test that ends earlier takes the model away while the page asks for it.
    """
    expect(page.locator("#readiness")).to_have_attribute("data-state", "ready")
    expect(button(page, "Send").and_(page.locator(":not([aria-busy=true])"))).to_be_enabled()
    expect(page.locator(".growing")).to_have_count(0)


class Late:
    """What the server answers to one request of a page, on its way for as long as a test wants.

    Made before the page asks.
    """

    def __init__(self, page: Page, address: str) -> None:
        self._page = page
        self._routes: list[Route] = []
        page.route(address, lambda route: self._routes.append(route), times=1)

    def made(self) -> None:
        """Let the server answer: later it would say something else."""
        # Playwright calls what handles a request while it waits for something.
        eventually(lambda: self._page.evaluate("true") and self._routes)
        self._answer = self._routes[0].fetch()

    def arrive(self) -> None:
        """Let the page have it; returns when it has."""
        route = self._routes[0]
        with self._page.expect_event("requestfinished", lambda request: request == route.request):
            route.fulfill(response=self._answer)
        self._page.evaluate("new Promise((resolve) => setTimeout(resolve))")
