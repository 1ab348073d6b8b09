"""The Content-Security-Policy: one for every page, but for what Django's admin cannot keep."""

from __future__ import annotations

from csp.middleware import CSPMiddleware, PolicyParts
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from .inline import Inline

WITHOUT_TRUSTED_TYPES = {"require-trusted-types-for": None, "trusted-types": None}


class PolicyMiddleware(Inline, CSPMiddleware):
    """The admin's own scripts (jQuery) write HTML as text: its pages go without Trusted Types."""

    def get_policy_parts(
        self, request: HttpRequest, response: HttpResponseBase, report_only: bool = False
    ) -> PolicyParts:
        parts = super().get_policy_parts(request, response, report_only)
        match = request.resolver_match
        if match is not None and "admin" in match.app_names:
            parts.replace = {**(parts.replace or {}), **WITHOUT_TRUSTED_TYPES}
        return parts
