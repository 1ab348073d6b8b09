"""The admin keeps the strict policy, but for Trusted Types, which its own scripts cannot."""

from __future__ import annotations

from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import resolve

from webchat_project.policy import PolicyMiddleware


def policy(path: str) -> dict[str, str]:
    request = RequestFactory().get(path)
    request.resolver_match = resolve(path)
    answer = PolicyMiddleware(lambda _: HttpResponse()).process_response(request, HttpResponse())
    directives = answer["Content-Security-Policy"].split("; ")
    return dict(each.partition(" ")[::2] for each in directives)


def test_the_admin_differs_from_other_pages_in_trusted_types_alone():
    page, admin = policy("/"), policy("/admin/auth/user/")
    left_out = {"require-trusted-types-for", "trusted-types"}
    assert left_out <= set(page)
    assert admin == {name: value for name, value in page.items() if name not in left_out}
