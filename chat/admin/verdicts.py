"""Judging a response on its page."""

from __future__ import annotations

from copy import copy
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import IntegrityError
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.utils import display_for_label
from unfold.widgets import UnfoldAdminRadioSelectWidget, UnfoldAdminTextareaWidget

from chat.admin.cells import NOTHING
from chat.admin.log import ChatAdmin, made_once
from chat.admin.lookups import UNREADABLE
from chat.models import Response, Verdict
from chat.models.review import NOTE_LENGTH

SHOWN = "_changelist_filters"  # Django's name for the list that a page was reached from
LABELS = {Verdict.Value.GOOD: "success", Verdict.Value.BAD: "danger"}


class VerdictForm(forms.ModelForm):
    """Good or bad, and why."""

    value = forms.ChoiceField(
        label="Verdict",
        choices=Verdict.Value.choices,
        widget=UnfoldAdminRadioSelectWidget,
    )

    class Meta:
        model = Verdict
        fields = ("value", "note")
        widgets = {
            "note": UnfoldAdminTextareaWidget(attrs={"rows": 3, "maxlength": NOTE_LENGTH}),
        }


class Judging(ChatAdmin):
    """Part of the responses' admin: a column, a field to judge in, and where that goes.

    A page of the admin is one form, in which nothing else can be changed; buttons of the field send
    it elsewhere.
    """

    def has_judge_permission(self, request: HttpRequest) -> bool:
        """To look is one right, to judge another."""
        return self.has_view_permission(request) and request.user.has_perm("chat.add_verdict")

    def get_urls(self) -> list[URLPattern]:
        """Where the form goes."""
        judge = self.admin_site.admin_view(self.judge)
        return [
            path("<path:object_id>/judge/", judge, name="chat_response_judge"),
            *super().get_urls(),
        ]

    def judge(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Store a verdict instead of the reviewer's earlier one, or take that back."""
        if not self.has_judge_permission(request):
            raise PermissionDenied
        row: Response | None = self.get_object(request, object_id)
        if row is None:
            raise Http404
        if request.method != "POST":
            pass  # whoever had to log in first, or asks for this address: the page says more
        elif row.active:
            self.message_user(request, "It is still being answered.", messages.WARNING)
        elif "withdraw" in request.POST:
            self._withdraw(request, row)
        elif (form := VerdictForm(request.POST)).is_valid():
            self._store(request, row, form)
            if "next" in request.POST:
                return self._go_on(request, row)
            self.message_user(request, "Your verdict is stored.", messages.SUCCESS)
        else:
            return self._ask_again(request, object_id, form)
        address = reverse("admin:chat_response_change", args=[row.pk])
        return redirect(f"{address}{self.list_shown(request)}")

    def _go_on(self, request: HttpRequest, row: Response) -> HttpResponse:
        """To the next response of the list that the reviewer came from, or back to that."""
        stored = "Your verdict is stored; "
        if (following := self._following(request, row)) is not None:
            self.message_user(request, f"{stored}this is the next response.", messages.SUCCESS)
            address = reverse("admin:chat_response_change", args=[following.pk])
            return redirect(f"{address}{self.list_shown(request)}")
        self.message_user(request, f"{stored}the list has no further one.", messages.SUCCESS)
        list_shown = request.GET.get(SHOWN, "")
        return redirect(f"{reverse('admin:chat_response_changelist')}?{list_shown}")

    def _following(self, request: HttpRequest, row: Response) -> Response | None:
        """The one below this in the list; what is still being answered is left out."""
        asking: Any = copy(request)
        asking.GET = QueryDict(request.GET.get(SHOWN, ""), mutable=True)
        asking.GET.pop(PAGE_VAR, None)  # with a verdict more a filter may leave fewer pages
        try:
            rows = self.get_changelist_instance(asking).queryset
            oldest_first = "created_at" in rows.query.order_by
            beyond = {f"created_at__{'gte' if oldest_first else 'lte'}": row.created_at}
            # Of one moment Django lists the greatest key first, in either direction.
            above = {"created_at": row.created_at, "pk__gte": row.pk}
            below = rows.exclude(status__in=Response.ACTIVE).filter(**beyond).exclude(**above)
            found: Response | None = below.prefetch_related(None).first()
        except (IncorrectLookupParameters, SuspiciousOperation, *UNREADABLE):
            return None
        return found

    def _ask_again(self, request: Any, object_id: str, form: VerdictForm) -> HttpResponse:
        """The page once more, with what was typed and what is wrong with it."""
        for name, problems in form.errors.items():
            label = form.fields[name].label
            self.message_user(request, f"{label}: {problems[0]}", messages.ERROR)
        request.method, request.verdict_form = "GET", form  # it is shown, and changes nothing
        return self.changeform_view(request, object_id)

    def _store(self, request: HttpRequest, row: Response, form: VerdictForm) -> None:
        told = {**form.cleaned_data, "judged_at": timezone.now()}
        try:
            Verdict.objects.update_or_create(told, response=row, reviewer_id=request.user.pk)
        except IntegrityError as error:
            raise Http404 from error  # the response was removed meanwhile
        self._note(request, row, f"Judged {told['value']}.")

    def _withdraw(self, request: HttpRequest, row: Response) -> None:
        taken_back, _ = row.verdicts.filter(reviewer=request.user.pk).delete()
        if taken_back:
            self._note(request, row, "Verdict withdrawn.")
            self.message_user(request, "Your verdict is withdrawn.", messages.SUCCESS)

    def _note(self, request: HttpRequest, row: Response, sentence: str) -> None:
        # Without its text: its user may delete that, and the log of actions stays.
        self.log_change(request, Response(pk=row.pk, status=row.status), sentence)

    @admin.display(description="verdict")
    def verdict_labels(self, row: Response) -> SafeString | str:
        """Each value that there is, once."""
        values = sorted({verdict.value for verdict in row.verdicts.all()}, reverse=True)
        labels = [(display_for_label((value, value), NOTHING, LABELS),) for value in values]
        return format_html_join(" ", "{}", labels) or NOTHING

    @admin.display(description="verdicts")
    @made_once
    def all_verdicts(self, row: Any) -> SafeString | str:
        """Who thinks what, and why; for those who may judge what has come to its end, the form."""
        context: dict[str, Any] = {"verdicts": row.verdicts.select_related("reviewer")}
        if not row.active and self.has_judge_permission(row.request):
            own = row.verdicts.filter(reviewer=row.request.user.pk).first()
            form = getattr(row.request, "verdict_form", None) or VerdictForm(instance=own)
            address = reverse("admin:chat_response_judge", args=[row.pk])
            address += self.list_shown(row.request)
            context |= {"form": form, "own": own, "address": address}
            context["reviewer"] = row.request.user.pk
        return render_to_string("chat/verdicts.html", context)
