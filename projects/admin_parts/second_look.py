"""A second look before something that can't be undone: what will happen, and why it is wanted.

An action of a list first shows a page with the consequences and asks for a reason. A form shows
them above a box to tick, and is saved when the box is ticked. The confirmation belongs to exactly
these consequences: if they change meanwhile, they are shown again.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

MOST_ROWS = 200
"""The most rows that an action takes at once, because somebody has to read about each."""
LONGEST_REASON = 500


def reason_for_switching() -> forms.CharField:
    """Return the field for why something is switched on or off."""
    return forms.CharField(
        max_length=LONGEST_REASON,
        required=False,
        label="Reason for switching it on or off",
        help_text="For the audit trail. Only needed if “Is active” changes.",
    )


def digest(sentences: Iterable[str]) -> str:
    """Return a digest of the sentences. A form sends it back to confirm exactly these sentences."""
    return hashlib.sha256("\n".join(sentences).encode()).hexdigest()[:32]


class SecondLookForm(forms.ModelForm[Any]):
    """A form that shows what will happen, and is only valid once that is confirmed.

    A subclass returns the sentences from `consequences`, none if no second look is needed.
    """

    confirmed = forms.CharField(
        required=False, label="Yes, this is what I want", widget=forms.HiddenInput
    )

    def consequences(self, given: dict[str, Any]) -> Sequence[str]:
        """Return what will happen, in sentences, from the form's valid fields."""
        raise NotImplementedError

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if self.errors:
            return
        sentences = self.consequences(self.cleaned_data)
        if not sentences or self.cleaned_data.get("confirmed") == digest(sentences):
            return
        self.fields["confirmed"].widget = forms.CheckboxInput(
            attrs={"value": digest(sentences)}, check_test=lambda _value: False
        )
        self.add_error(
            None, "Not saved yet. Read what will happen, tick the box below it, and save again."
        )
        self.add_error("confirmed", list(sentences))


class SecondLookAdmin:
    """A mixin for a `ModelAdmin` whose form is a `SecondLookForm`."""

    form: type[SecondLookForm]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields. Users who can't change the row get only the row's own fields."""
        fields = super().get_fields(request, obj)  # type: ignore[misc]
        if obj is None or self.has_change_permission(request, obj):  # type: ignore[attr-defined]
            return fields
        return [name for name in fields if name not in self.form.declared_fields]


class ReasonForm(forms.Form):
    """Why an action is wanted."""

    reason = forms.CharField(
        max_length=LONGEST_REASON,
        label="Reason",
        help_text="For the audit trail.",
        error_messages={"required": "Say why. The audit trail keeps it."},
    )


class SecondLook:
    """The second look at an action of a list.

    `answer` is the page to show, or None if the action was confirmed for `reason`. `effect` returns
    the sentence about a row: what happens to it, and who is refused from then on.
    """

    def __init__(
        self,
        page: admin.ModelAdmin[Any],
        request: HttpRequest,
        rows: QuerySet[Any],
        *,
        title: str,
        effect: Callable[[Any], str],
        button: str,
    ) -> None:
        self.rows = list(rows[: MOST_ROWS + 1])
        self.reason = ""
        self.answer: TemplateResponse | None = None
        self.is_refused = len(self.rows) > MOST_ROWS
        if self.is_refused:
            text = f"Choose at most {MOST_ROWS} rows, so that you can read what happens to each."
            page.message_user(request, text, messages.ERROR)
            return
        effects = [effect(row) for row in self.rows]
        answered = "confirmed" in request.POST
        typed = {"reason": request.POST.get("reason", "")}
        form = ReasonForm(request.POST if answered else None, initial=typed, label_suffix="")
        if answered and request.POST["confirmed"] == digest(effects) and form.is_valid():
            self.reason = form.cleaned_data["reason"]
            return
        context = page.admin_site.each_context(request) | {
            "title": title,
            "opts": page.opts,
            "effects": effects,
            "form": form,
            "changed": answered and request.POST["confirmed"] != digest(effects),
            "confirmed": digest(effects),
            "button": button,
            "rows": self.rows,
            "selected_name": ACTION_CHECKBOX_NAME,
            "kept": _kept(request),
        }
        self.answer = TemplateResponse(request, "projects/second_look.html", context)

    @property
    def is_confirmed(self) -> bool:
        """Whether the action was confirmed, so that it can be done now."""
        return self.answer is None and not self.is_refused


def _kept(request: HttpRequest) -> list[tuple[str, str]]:
    """Return the fields of the list's form that the confirmed action has to send again."""
    ours = {"confirmed", "reason", "select_across", "index", "csrfmiddlewaretoken"}
    index = request.POST.get("index", "0")
    kept = []
    for name, values in request.POST.lists():
        if name in ours or name == ACTION_CHECKBOX_NAME or name.startswith("form-"):
            continue
        at = int(index) if index.isdecimal() and int(index) < len(values) else 0
        kept.append((name, values[at]))
    return kept
