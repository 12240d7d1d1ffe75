"""All routes: the API, its documentation, the admin."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularSwaggerView

from chat.log_in_forms import LogInForm
from chat.views.description import Description
from chat.views.password import ChangePassword

urlpatterns = [
    path("admin", RedirectView.as_view(url="/admin/")),
    # Django's page for staff would look at any number of passwords at once.
    path("admin/password_change/", RedirectView.as_view(pattern_name="password")),
    path("admin/", admin.site.urls),
    path(
        "login/",
        LoginView.as_view(
            template_name="chat/login.html",
            authentication_form=LogInForm,
            redirect_authenticated_user=True,
        ),
        name="login",
    ),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("password/", ChangePassword.as_view(), name="password"),
    path("api/schema/", Description.as_view(), name="schema"),
    path(
        "api/docs/",
        SpectacularSwaggerView.as_view(url_name="schema", http_method_names=["get", "head"]),
        name="docs",
    ),
    path("", include("chat.urls")),
]

handler400 = "chat.handlers.bad_request"
handler403 = "chat.handlers.permission_denied"
handler404 = "chat.handlers.not_found"
handler500 = "chat.handlers.server_error"
