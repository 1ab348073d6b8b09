"""Addresses: the chat, the accounts, the operator's desk."""

from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.urls import include, path

from chat.pages import sign_in

admin.site.site_header = admin.site.site_title = "Webchat"
admin.site.index_title = "Administration"

urlpatterns = [
    path("accounts/login/", sign_in, name="login"),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    path("", include("chat.urls")),
]
