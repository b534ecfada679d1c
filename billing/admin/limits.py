"""Admin pages for limits and top-ups."""

import zoneinfo
from collections import defaultdict
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminSplitDateTime
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils import timezone

from billing.admin.allowances import (
    AllowanceAdmin,
    AllowanceForm,
    CreditsField,
    CreditsOrNoneForm,
    bucket,
    refusal,
    unusual,
)
from billing.admin.read_only import actor, credits_column, number
from billing.allowances.grants import (
    GrantRequest,
    check_times,
    find_grant_by_key,
    grant_credits,
    void_grant,
)
from billing.allowances.limits import set_limit
from billing.allowances.usual import usual_grant, usual_limit
from billing.credits import display, exact
from billing.decisions.preview import with_limit, without_grants
from billing.models import Account, CreditGrant, Limit
from projects.admin_parts.second_look import SecondLook
from quota.moments import day, moment


class PercentsField(forms.CharField):
    """A field for percents, such as "80, 100"."""

    def clean(self, value: Any) -> Any:
        """Return a list of numbers between 1 and 100."""
        words = str(super().clean(value)).replace(",", " ").split()
        percents = [number(word) for word in words]
        if not all(1 <= percent <= 100 for percent in percents):
            raise forms.ValidationError("Enter percents between 1 and 100, such as 80, 100.")
        return percents


class LimitForm(CreditsOrNoneForm):
    """The form for a new limit. The limit applies to the whole current period."""

    credits = CreditsField(required=False, label="Credits per period")
    no_amount = forms.BooleanField(
        required=False, label="Unlimited", help_text="Nobody is refused, however much is used."
    )
    thresholds = PercentsField(
        initial="80, 100", required=False, help_text="Percents at which to warn, once per period."
    )
    grace_days = forms.IntegerField(
        min_value=0,
        max_value=366,
        initial=0,
        help_text="Days between reaching the limit and the refusal, where there is grace.",
    )
    anchor_day = forms.IntegerField(
        min_value=1,
        max_value=31,
        initial=1,
        label="First day of the period",
        help_text="A day between 1 and 31. A shorter month begins its period on its last day.",
        error_messages=dict.fromkeys(
            ("invalid", "min_value", "max_value"), "Enter a day between 1 and 31."
        ),
    )

    class Meta:
        model = Limit
        fields = [
            "account",
            "credits",
            "no_amount",
            "mode",
            "grace_days",
            "anchor_day",
            "time_zone",
            "thresholds",
            "reason",
        ]

    def clean_time_zone(self) -> str:
        """Reject an unknown time zone."""
        zone = str(self.cleaned_data["time_zone"])
        if zone not in zoneinfo.available_timezones():
            raise forms.ValidationError("Unknown time zone. Enter one such as Europe/Berlin.")
        return zone

    def consequences(self, given: dict[str, Any]) -> list[str]:
        """Return warnings about a limit that is unusual or refuses at once."""
        account, micro = given["account"], given["credits"]
        title = bucket(account)
        whose = f"{account.organization}: {title}"
        if micro is None:
            latest = Limit.objects.filter(account=account).first()
            if latest is None or latest.limit_micro is None:
                return []
            return [
                f"{whose} become unlimited, instead of {display(latest.limit_micro)} credits per "
                "period. Nobody is refused, whatever it costs."
            ]
        terms = {
            name: given[name]
            for name in ("mode", "grace_days", "anchor_day", "time_zone", "thresholds")
        }
        after = with_limit(
            account, Limit(account=account, limit_micro=micro, **terms), timezone.now()
        )
        found = [*unusual(micro, usual_limit(account), "limit")]
        found += refusal(account.organization, title, after)
        if not found:
            return []
        return [f"{whose} get a limit of {display(micro)} credits per period.", *found]


@admin.register(Limit)
class LimitAdmin(AllowanceAdmin):
    """What organizations can use per period, now and in the past."""

    form = LimitForm
    list_display = ["set_at", "account", "limit", "mode", "actor", "reason"]
    list_filter = ["mode", "account__resource", "set_at"]
    shown = [
        "account",
        "limit",
        "mode",
        "grace_days",
        "anchor_day",
        "time_zone",
        "thresholds",
        "set_at",
        "actor",
        "reason",
    ]

    def create(self, account: Account, given: dict[str, Any], **who: Any) -> Limit:
        """Set the limit."""
        credits = given.pop("credits")
        return set_limit(account.organization, account.resource, credits, **given, **who)

    def initial_of(self, account: Account) -> dict[str, Any]:
        """Return the values of the limit in force."""
        limit = Limit.objects.filter(account=account).first()
        if limit is None:
            return {}
        copied = ("mode", "grace_days", "anchor_day", "time_zone")
        initial = {name: getattr(limit, name) for name in copied}
        initial["thresholds"] = ", ".join(map(str, limit.thresholds))
        if limit.limit_micro is None:
            initial["no_amount"] = True
        else:
            initial["credits"] = exact(limit.limit_micro)
        return initial

    @admin.display(description="credits per period", ordering="limit_micro")
    def limit(self, limit: Limit) -> str:
        """Return the limit in credits, or "unlimited"."""
        return "unlimited" if limit.limit_micro is None else display(limit.limit_micro)


class CreditGrantForm(AllowanceForm):
    """The form for a top-up. If it is sent twice, by a double click or a retry, it tops up once."""

    credits = CreditsField(label="Credits")
    starts_at = forms.SplitDateTimeField(
        required=False, widget=AdminSplitDateTime, help_text="UTC. Empty: now."
    )
    form_key = forms.CharField(
        required=False, widget=forms.HiddenInput, initial=lambda: uuid4().hex
    )

    class Meta:
        model = CreditGrant
        fields = ["account", "credits", "starts_at", "expires_at", "priority", "reason"]

    def clean(self) -> dict[str, Any]:
        """Reject a grant that could never be spent, or a form that was already sent."""
        given: dict[str, Any] = super().clean() or self.cleaned_data
        now = timezone.now()
        try:
            check_times(given.get("starts_at") or now, given.get("expires_at"), now)
        except ValueError as error:
            self.add_error(None, str(error))
        if given.get("credits") == 0:
            self.add_error("credits", "A top-up must be more than 0.")
        if not self.errors:
            self._reject_repeat(given)
        return given

    def consequences(self, given: dict[str, Any]) -> list[str]:
        """Return warnings about an unusual top-up."""
        account, micro = given["account"], given["credits"]
        found = [*unusual(micro, usual_grant(account), "top-up")]
        whose = f"{account.organization} gets {display(micro)} {bucket(account)} as a top-up."
        lasting = "It can be voided later, but the credits used until then stay used."
        return [whose, *found, lasting] if found else []

    def _reject_repeat(self, given: dict[str, Any]) -> None:
        """Add an error if the form was already sent, with the time of the top-up."""
        asked = GrantRequest(
            *(given[name] for name in ("credits", "starts_at", "expires_at", "priority"))
        )
        try:
            granted = find_grant_by_key(given["account"], given["form_key"], asked)
        except ValueError as error:
            self.add_error(None, f"{error} Open a new form to make another one.")
        else:
            if granted is not None:
                made_at = moment(granted.created_at, seconds=True)
                self.add_error(
                    None,
                    f"This top-up was already made at {made_at}. "
                    "Open a new form to make another one.",
                )


@admin.register(CreditGrant)
class CreditGrantAdmin(AllowanceAdmin):
    """Top-ups: credits in addition to the limit. They can be voided, but not changed."""

    form = CreditGrantForm
    list_display = [
        "created_at",
        "account",
        "amount",
        "starts_at",
        "expires_at",
        "voided_at",
        "priority",
        "actor",
        "reason",
    ]
    list_filter = ["account__resource", ("voided_at", admin.EmptyFieldListFilter), "created_at"]
    actions = ["void"]
    amount = credits_column("amount_micro", "credits")
    shown = [
        "account",
        "amount",
        "starts_at",
        "expires_at",
        "voided_at",
        "priority",
        "created_at",
        "actor",
        "reason",
    ]

    def create(self, account: Account, given: dict[str, Any], **who: Any) -> CreditGrant:
        """Grant the credits."""
        credits = given.pop("credits")
        given["idempotency_key"] = given.pop("form_key")
        return grant_credits(account.organization, account.resource, credits, **given, **who)

    @admin.action(description="Void: take back what is left", permissions=["add"])
    def void(self, request: HttpRequest, grants: QuerySet[CreditGrant]) -> TemplateResponse | None:
        """Void the selected top-ups, after a second look."""
        working = grants.filter(voided_at=None).select_related("account__organization")
        look = SecondLook(
            self,
            request,
            working.order_by("pk"),
            title="Void top-ups",
            effect=_effect_of_voiding(working),
            button="Void these top-ups",
        )
        if not look.is_confirmed:
            return look.answer
        for grant in look.rows:
            void_grant(grant, actor=actor(request), reason=look.reason)
        self.message_user(request, f"{len(look.rows)} top-up(s) voided.", messages.SUCCESS)
        return None


def _effect_of_voiding(grants: QuerySet[CreditGrant]) -> Callable[[CreditGrant], str]:
    """Return a function that says what voiding all these grants means for a grant's account."""
    by_account: dict[int, list[int]] = defaultdict(list)
    for account, grant in grants.values_list("account_id", "pk"):
        by_account[account].append(grant)

    def effect(grant: CreditGrant) -> str:
        account, now = grant.account, timezone.now()
        after = without_grants(account, by_account[account.pk], now)
        refused = [*refusal(account.organization, bucket(account), after)]
        return " ".join(
            [
                f"{account.organization} loses what is left of its top-up from "
                f"{day(grant.starts_at)} of {display(grant.amount_micro)} {bucket(account)}.",
                *(refused or ["Nobody is refused because of that."]),
                "A voided top-up can't be brought back.",
            ]
        )

    return effect
