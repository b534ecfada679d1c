"""Base classes of the admin pages for limits, caps and top-ups."""

from collections.abc import Iterator, Sequence
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import urlencode

from billing.admin.read_only import actor, number
from billing.allowances.usual import TIMES
from billing.credits import display, parse_credits
from billing.decisions.decision import FAR_FUTURE, Decision
from billing.models import Account
from projects.admin_parts.named_search import NamedSearch
from projects.admin_parts.second_look import LONGEST_REASON, SecondLookForm
from projects.models import Organization
from quota.moments import moment
from quota.reasons import Reason
from quota.resources import RESOURCES


class CreditsField(forms.CharField):
    """A field for an amount of credits. Its value is in micro-credits."""

    default_error_messages = {"required": "Enter an amount of credits, such as 2000 or 0.5."}

    def clean(self, value: Any) -> Any:
        """Return micro-credits, or None if the field is optional and empty."""
        text = super().clean(value)
        if not text:
            return None
        try:
            return parse_credits(text)
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error


class AllowanceForm(SecondLookForm):
    """The form for a new row, with a reason and a second look at unusual amounts."""

    reason = forms.CharField(
        max_length=LONGEST_REASON,
        help_text="For the audit trail.",
        error_messages={"required": "Say why. The audit trail keeps it."},
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "account" in self.fields:  # it isn't on the page of an existing row
            self.fields["account"].error_messages |= {
                "required": "Choose the account of an organization and a bucket.",
                "invalid_choice": "There is no such account. Choose one from the list.",
            }


class CreditsOrNoneForm(AllowanceForm):
    """A form that requires either an amount of credits or a tick for “no amount”.

    `credits` is None if the box is ticked.
    """

    credits = CreditsField(required=False, label="Credits")
    no_amount = forms.BooleanField(required=False)

    def clean(self) -> dict[str, Any]:
        """Require either an amount or the tick."""
        given: dict[str, Any] = super().clean() or self.cleaned_data
        none = given.pop("no_amount", False)
        title = self.fields["no_amount"].label
        if "credits" in given and none == (given["credits"] is not None):
            self.add_error(
                "credits",
                f"Enter an amount of credits, such as 2000 or 0.5, or tick “{title}”"
                f"{', not both' if none else ''}.",
            )
        return given


def bucket(account: Account) -> str:
    """Return the title of an account's bucket."""
    return RESOURCES[account.resource].title


def unusual(amount_micro: int, usual_micro: int, what: str) -> Iterator[str]:
    """Yield a sentence if an amount is many times the usual one."""
    if amount_micro > TIMES * usual_micro:
        yield (
            f"A usual {what} here is {display(usual_micro)} credits. "
            f"This is {amount_micro // usual_micro:,} times as much."
        )


def refusal(organization: Organization, title: str, decision: Decision) -> Iterator[str]:
    """Yield a sentence if a decision refuses everybody for lack of credits.

    It doesn't mention the usage, which changes while somebody reads the sentence.
    """
    if not decision.limited or decision.reason is Reason.ORGANIZATION_INACTIVE:
        return
    until = decision.limited_until
    ends = "until there is a higher limit or a top-up"
    if until is not None and until < FAR_FUTURE:
        ends = f"until {moment(until)}"
    yield (
        f"Everybody in {organization} is refused {title} from then on, {ends}, because no "
        "credits are left."
    )


class AllowanceAdmin(NamedSearch, admin.ModelAdmin[Any]):
    """Rows can be added, but never changed or deleted.

    A subclass lists the fields to show in `shown`, and creates rows in `create`.
    """

    shown: Sequence[str] = ()
    list_select_related = ["account__organization"]
    search_fields = ["account__organization__name", "actor", "reason"]
    autocomplete_fields = ["account"]

    def create(self, account: Account, given: dict[str, Any], **who: Any) -> Model:
        """Create a row from the form's fields, publish the result, and return the row."""
        raise NotImplementedError

    def initial_of(self, _account: Account) -> dict[str, Any]:
        """Return the initial values of the form for an account."""
        return {}

    def has_change_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Return False: rows are never changed."""
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Return False: rows are never deleted."""
        return False

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the form's fields for a new row, and `shown` for an existing one."""
        return super().get_fields(request, obj) if obj is None else self.shown

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Return the form's initial values, with the account that the link names."""
        initial: dict[str, Any] = dict(super().get_changeform_initial_data(request))
        account = Account.objects.filter(pk=number(initial.get("account"))).first()
        if account is None:
            return initial | {"account": None}
        return initial | {"account": account.pk} | self.initial_of(account)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Create the row through billing, which publishes the result."""
        given = dict(form.cleaned_data)
        given.pop("confirmed")
        account, reason = given.pop("account"), given.pop("reason")
        obj.pk = self.create(account, given, actor=actor(request), reason=reason).pk
        obj.refresh_from_db()

    def response_post_save_add(self, request: HttpRequest, obj: Any) -> HttpResponseRedirect:
        """Redirect to the organization's usage, if the user has permission to see it."""
        if not request.user.has_perms(["projects.view_organization", "billing.view_account"]):
            return super().response_post_save_add(request, obj)
        page = reverse("admin:projects_organization_usage", args=[obj.account.organization_id])
        return HttpResponseRedirect(f"{page}?{urlencode({'resource': obj.account.resource})}")
