"""Admin page for caps of a project, a user or each run."""

from typing import Any

from django import forms
from django.contrib import admin

from billing.admin.allowances import AllowanceAdmin, CreditsOrNoneForm, bucket
from billing.allowances.caps import check_cap, is_known_user, set_cap
from billing.credits import display
from billing.models import Account, Cap

SHOWN_PROJECTS = 20


class CapForm(CreditsOrNoneForm):
    """The form for a new cap. The cap applies to the whole current period."""

    no_amount = forms.BooleanField(required=False, label="Not capped")

    class Meta:
        model = Cap
        fields = ["account", "scope", "subject", "credits", "no_amount", "reason"]

    def clean(self) -> dict[str, Any]:
        """Reject an invalid cap."""
        given: dict[str, Any] = super().clean() or self.cleaned_data
        if {"account", "scope", "subject", "credits"} <= given.keys():
            try:
                check_cap(
                    given["account"].organization,
                    given["scope"],
                    given["subject"],
                    given["credits"],
                )
            except ValueError as error:
                # An error on the field also replaces the error of the table's constraint.
                self.add_error("subject", self._explained(given, str(error)))
        return given

    @staticmethod
    def _explained(given: dict[str, Any], problem: str) -> list[str]:
        """Return the problem. If the project is wrong, also return the projects to choose from."""
        if given["scope"] != Cap.Scope.PROJECT or not given["subject"]:
            return [problem]
        projects = given["account"].organization.projects.order_by("name")[: SHOWN_PROJECTS + 1]
        named = ", ".join(f"{each.pk} ({each.name})" for each in projects[:SHOWN_PROJECTS])
        more = ", …" if len(projects) > SHOWN_PROJECTS else ""
        return [problem, f"Its projects: {named or 'none'}{more}."]

    def consequences(self, given: dict[str, Any]) -> list[str]:
        """Return warnings about a cap that refuses at once, or whose user is unknown."""
        account, subject = given["account"], given["subject"]
        found = []
        if given["scope"] == Cap.Scope.USER and subject and not is_known_user(account, subject):
            found.append(
                f"Nobody called {subject} has ever used credits of {account.organization}. Users "
                "of Slack are written as slack:T…:U…, with the ids of the workspace and the user."
            )
        if given["credits"] == 0:
            whom = f"{given['scope']} {subject}"
            if not subject:
                whom = f"every {given['scope']} without a cap of its own"
            found.append(
                f"{account.organization}: {whom} is refused {bucket(account)} from then on."
            )
        return found


@admin.register(Cap)
class CapAdmin(AllowanceAdmin):
    """What single projects, users and runs can use, now and in the past."""

    form = CapForm
    list_display = ["set_at", "account", "scope", "subject", "cap", "actor", "reason"]
    list_filter = ["scope", "account__resource", "set_at"]
    search_ids = ["subject__icontains"]
    shown = ["account", "scope", "subject", "cap", "set_at", "actor", "reason"]

    def create(self, account: Account, given: dict[str, Any], **who: Any) -> Cap:
        """Set the cap."""
        credits = given.pop("credits")
        scope = given.pop("scope")
        return set_cap(account.organization, account.resource, scope, credits, **given, **who)

    @admin.display(description="credits", ordering="cap_micro")
    def cap(self, cap: Cap) -> str:
        """Return the cap in credits, or "not capped"."""
        return "not capped" if cap.cap_micro is None else display(cap.cap_micro)
