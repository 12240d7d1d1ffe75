"""The documentation says what the code does: every setting, route, code and event stands in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.urls import URLPattern, get_resolver

from chat.failures import Code
from chat.models import Response
from chat.views.metrics import registry
from tests import modules

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCS = {file.name: file.read_text() for file in (ROOT / "docs").glob("*.md")}
READ_IN_CODE = re.compile(r'env\.\w+\(\s*"([A-Z_]+)"|environ(?:\.get\(|\[)"([A-Z_]+)"')
OUTSIDE = {"DJANGO_SETTINGS_MODULE", "XDG_CACHE_HOME"}


def variables() -> set[str]:
    """Every environment variable that our code reads."""
    files = [
        file for part in ("llmsite", "chat", "modelhost") for file in (ROOT / part).rglob("*.py")
    ]
    found = {
        name for file in files for pair in READ_IN_CODE.findall(file.read_text()) for name in pair
    }
    return found - OUTSIDE - {""}


def routes() -> list[str]:
    """Every route of ours, as the documentation writes it."""
    ours = next(item for item in get_resolver().url_patterns if "chat.urls" in str(item))
    return [
        re.sub(r"<\w+:\w+>", "{id}", str(pattern.pattern).strip("^$").replace("/?", "/"))
        for pattern in ours.url_patterns
        if isinstance(pattern, URLPattern)
    ]


def test_every_environment_variable_is_described():
    missing = [name for name in variables() if f"`{name}`" not in DOCS["configuration.md"]]

    assert len(variables()) > 10
    assert missing == []


@pytest.mark.parametrize("route", routes())
def test_every_route_is_described(route):
    assert f"/{route}".rstrip("/") in DOCS["api.md"]


def test_every_error_code_is_described_and_none_else():
    described = set(re.findall(r"^\| \d{3} \| `(\w+)`", DOCS["errors.md"], re.MULTILINE))

    assert described == set(Code)


def test_every_metric_is_described_and_none_else(engine):
    names = {metric.name for metric in registry.collect() if metric.name.startswith("llmsite_")}
    described = re.findall(r"`(llmsite_[a-z_]+)[`{]", DOCS["operations.md"])

    assert {re.sub("_(total|info)$", "", name) for name in described} == names


@pytest.mark.parametrize("name", ["done", "error", *Response.Status.values])
def test_every_event_and_status_is_described(name):
    assert f"`{name}`" in DOCS["api.md"]


def anchors(page: Path) -> set[str]:
    """The headings of a page, as GitHub makes addresses of them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page):
    for link in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page

        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_decision_is_in_their_list():
    listed = (ROOT / "docs/decisions/README.md").read_text()

    numbered = list((ROOT / "docs/decisions").glob("0*.md"))
    assert len(numbered) > 30
    assert [file.name for file in numbered if f"]({file.name})" not in listed] == []


def test_every_example_is_described_and_there():
    named = re.findall(r"\]\(\.\./(examples/[\w.-]+)\)", DOCS["clients.md"])

    assert sorted(named) == sorted(
        f"examples/{file.name}" for file in (ROOT / "examples").iterdir() if file.is_file()
    )


def test_every_module_is_described_as_it_describes_itself():
    assert modules.FILE.read_text() == modules.page(), "python -m tests.modules writes it"


def test_the_architecture_names_what_is_there():
    named = set(
        re.findall(r"`((?:chat|llmsite|modelhost)/[\w/]+(?:\.\w+|/))`", DOCS["architecture.md"])
    )

    assert len(named) > 30
    assert [path for path in named if not (ROOT / path).exists()] == []
