"""Requests without the final slash of their path: the redirect keeps method and body."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponsePermanentRedirect
from django.middleware import common
from django.utils.http import escape_leading_slashes


class SameRequestElsewhere(HttpResponsePermanentRedirect):
    """The method and the body stay (RFC 9110, section 15.4.9): 301 makes a GET of a POST."""

    status_code = 308


class CommonMiddleware(common.CommonMiddleware):
    """Django's, which lost what was posted to an address without its final slash."""

    response_redirect_class = SameRequestElsewhere

    def get_full_path_with_slash(self, request: HttpRequest) -> str:
        """The address with it. With DEBUG Django's raises for what 301 would have lost."""
        return escape_leading_slashes(request.get_full_path(force_append_slash=True))
