"""The pages of an organization's usage and of the backtest of a limit."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django import forms
from django.http import Http404, HttpRequest
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.utils import timezone

from billing.admin.allowances import CreditsField
from billing.decisions.timeline import load_timelines
from billing.models import Account
from billing.reports.period_usage import DayUsage, PeriodUsage
from billing.reports.sums import NOTHING, Used, joined
from console.report_page import report_page, require
from console.report_permissions import ORGANIZATION_USAGE, THREADS
from console.usage import breakdown
from console.usage import organization as reports
from console.usage.charts import charts, limit_is_drawn
from projects.models import Organization
from quota.reason_words import in_words
from quota.resources import AI_CREDITS, RESOURCES


class BacktestForm(forms.Form):
    """The limit to try on a past period."""

    limit = CreditsField(label="Credits per period")


def usage_page(request: HttpRequest, organization_id: UUID) -> TemplateResponse:
    """Show where an organization stands, and where its credits went."""
    require(request, ORGANIZATION_USAGE)
    account = _account(request, organization_id)
    report = reports.organization_usage(account, _requested_time(request), timezone.now())
    if not request.user.has_perm("billing.view_creditgrant"):
        report = replace(report, grants=())
    context = _frame(account, report.periods, report.usage) | {
        "title": f"Usage of {account.organization}",
        "report": report,
        "charts": charts(report),
        "limit_is_drawn": limit_is_drawn(report),
        "day_rows": [_day_row(day, report.usage.products) for day in report.usage.days],
        "product_totals": [_total(report.usage, product) for product in report.usage.products],
        "grant_rows": [
            {"burning": row, "grant": grant, "before": grant.amount_micro - row.at_start}
            for row, grant in report.grants
        ],
        "users": breakdown.users(report.by_user),
        "threads": breakdown.threads(report.by_thread),
        "models": breakdown.models(report.by_model),
        "why": in_words(report.state.reason) if report.state else "",
        "may_see_threads": request.user.has_perms(THREADS),
    }
    return report_page(request, "console/organization_usage.html", context)


def backtest_page(request: HttpRequest, organization_id: UUID) -> TemplateResponse:
    """Show what a limit would have refused, by default in the period before this one."""
    require(request, ORGANIZATION_USAGE)
    account = _account(request, organization_id)
    timeline = load_timelines([account.pk])[account.pk]
    periods = reports.periods_of(account, timeline, timezone.now())
    start = _requested_time(request) or periods[min(1, len(periods) - 1)].start
    form = BacktestForm(request.GET if "limit" in request.GET else None)
    report = None
    if form.is_valid():
        report = reports.backtest(account, start, form.cleaned_data["limit"])
    context = _frame(account, periods, None) | {
        "title": f"What a limit would have refused: {account.organization}",
        "form": form,
        "report": report,
        "refusals": joined(report.result.refused) if report else [],
        "chosen": timeline.period_at(start),
    }
    return report_page(request, "console/backtest.html", context)


def _day_row(day: DayUsage, products: list[str]) -> dict[str, Any]:
    used = [day.products.get(product, NOTHING) for product in products]
    return {"day": day.day, "products": used, "used": day.used}


def _total(usage: PeriodUsage, product: str) -> Used:
    return sum((day.products.get(product, NOTHING) for day in usage.days), NOTHING)


def _frame(account: Account, periods: Any, usage: Any) -> dict[str, Any]:
    return {
        "account": account,
        "organization": account.organization,
        "resource": RESOURCES[account.resource],
        "resources": RESOURCES.values(),
        "periods": periods,
        "chosen": usage.period if usage else None,
        "opts": Organization._meta,
    }


def _account(request: HttpRequest, organization_id: UUID) -> Account:
    resource = request.GET.get("resource", AI_CREDITS)
    if resource not in RESOURCES:
        raise Http404
    accounts = Account.objects.select_related("organization")
    return get_object_or_404(accounts, organization=organization_id, resource=resource)


def _requested_time(request: HttpRequest) -> datetime | None:
    """Return the time in `period`, or None if it is missing or isn't a time."""
    try:
        instant = datetime.fromisoformat(request.GET.get("period", ""))
    except ValueError:
        return None
    if not 2000 <= instant.year <= 2999:
        return None
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
