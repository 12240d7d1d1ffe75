"""All routes: the API, its documentation, the admin."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.contrib.contenttypes.views import shortcut
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularSwaggerView

from chat.access.log_in_forms import LogInForm
from chat.admin.lookups import read
from chat.views.description import Description
from chat.views.password import ChangePassword

urlpatterns = [
    path("admin", RedirectView.as_view(url="/admin/")),
    # One page for everybody: the admin's own looks at old passwords out of turn.
    path("admin/password_change/", RedirectView.as_view(pattern_name="password")),
    path(
        "admin/search/",
        admin.site.admin_view(read(admin.site.search)),  # type: ignore[attr-defined]  # Unfold's
    ),
    path("admin/r/<path:content_type_id>/<path:object_id>/", admin.site.admin_view(read(shortcut))),
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
