"""The pages of an organization's usage and of the backtest of a limit."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django import forms
from django.http import Http404, HttpRequest, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode

from billing.admin.allowances import CreditsField
from billing.admin.read_only import number as whole_number
from billing.credits import provider_dollars
from billing.decisions.timeline import Timeline, load_timelines
from billing.models import Account, Limit
from billing.reports.apportionment import displayed
from billing.reports.period_usage import PeriodUsage
from billing.reports.sums import NOTHING, Used, joined
from console.csv_answer import csv_answer
from console.report_page import report_page, require
from console.report_permissions import ORGANIZATION_USAGE, THREADS
from console.usage import dimensions
from console.usage import organization as reports
from console.usage.breakdown import breakdown
from console.usage.charts import charts, limit_is_drawn
from console.usage.dimensions import MODELS, USERS
from console.usage.span_choice import SpanChoice, chosen_span, requested_time
from console.usage.tables import ROWS, TABLES, Contents, Table
from projects.models import Organization
from quota.reason_words import in_words
from quota.resources import AI_CREDITS, RESOURCES


class BacktestForm(forms.Form):
    """The limit to try on a past period."""

    limit = CreditsField(label="Credits per period")


def usage_page(request: HttpRequest, organization_id: UUID) -> TemplateResponse:
    """Show where an organization stands, and where its credits went."""
    require(request, ORGANIZATION_USAGE)
    account, now = _account(request, organization_id), timezone.now()
    timeline = load_timelines([account.pk])[account.pk]
    wanted = requested_time(request.GET, timeline, now)
    report = reports.organization_usage(account, wanted, now)
    if not request.user.has_perm("billing.view_creditgrant"):
        report = replace(report, grants=())
    query = urlencode(
        {"period": report.usage.period.start.isoformat(), "resource": account.resource}
    )
    context = _frame(account, report.periods, report.usage, _zone(report.limit)) | {
        "title": f"Usage of {account.organization}",
        "report": report,
        "charts": charts(report),
        "limit_is_drawn": limit_is_drawn(report),
        "day_rows": _day_rows(report.usage),
        "product_totals": [_total(report.usage, product) for product in report.usage.products],
        "grant_rows": [
            {"burning": row, "grant": grant, "before": grant.amount_micro - row.at_start}
            for row, grant in report.grants
        ],
        "users": breakdown(report.by_user, USERS),
        "threads": breakdown(report.by_thread, dimensions.THREADS),
        "models": breakdown(report.by_model, MODELS),
        "why": in_words(report.state.reason) if report.state else "",
        "may_see_threads": request.user.has_perms(THREADS),
        "tables": {
            name.replace("-", "_"): (
                f"{_address('table', account, name)}?{query}",
                f"{_address('table_csv', account, name)}?{query}",
                each.title,
            )
            for name, each in _permitted_tables(request).items()
        },
        "provider": provider_dollars(report.usage.used.credits_micro, account.resource),
    }
    return report_page(request, "console/organization_usage.html", context)


def table_page(request: HttpRequest, organization_id: UUID, table: str) -> TemplateResponse:
    """Show a page of everything that a table has, for a period or between two dates."""
    now = timezone.now()
    account, timeline, choice, contents = _table(request, organization_id, table, now)
    pages = max(1, -(-len(contents.rows) // ROWS))
    number = min(max(whole_number(request.GET.get("page")), 1), pages)
    first = (number - 1) * ROWS
    query = f"{choice.query}&{urlencode({'resource': account.resource})}"
    resource = RESOURCES[account.resource]
    context = _frame(account, reports.periods_of(account, timeline, now), None, choice.zone) | {
        "title": f"{contents.table.title}: {account.organization}",
        "table": contents.table,
        "table_name": table,
        "tables": [(name, each.title) for name, each in _permitted_tables(request).items()],
        "choice": choice,
        "chosen": timeline.period_at(choice.span.start) if not choice.first else None,
        "rows": contents.page(first),
        "total": contents.total,
        "count": len(contents.rows),
        "first": first + 1,
        "last": min(first + ROWS, len(contents.rows)),
        "page_number": number,
        "pages": pages,
        "query": query,
        "provider": provider_dollars(contents.total.credits_micro, resource.name),
        "may_follow": request.user.has_perms(THREADS),
    }
    return report_page(request, "console/usage_table.html", context)


def table_csv(request: HttpRequest, organization_id: UUID, table: str) -> StreamingHttpResponse:
    """Return the whole table as a CSV file."""
    account, _, choice, contents = _table(request, organization_id, table, timezone.now())
    since = choice.span.start.astimezone(ZoneInfo(choice.zone)).date()
    name = f"{account.organization}-{account.resource}-{table}-{since}"
    return csv_answer(name, contents.header, contents.lines())


def _table(
    request: HttpRequest, organization_id: UUID, name: str, now: datetime
) -> tuple[Account, Timeline, SpanChoice, Contents]:
    require(request, ORGANIZATION_USAGE)
    if name not in TABLES:
        raise Http404
    require(request, TABLES[name].permissions)
    account = _account(request, organization_id)
    timeline = load_timelines([account.pk])[account.pk]
    choice = chosen_span(request.GET, timeline, now)
    return account, timeline, choice, Contents(TABLES[name], account, choice.span)


def _address(page: str, account: Account, table: str) -> str:
    return reverse(f"admin:projects_organization_{page}", args=[account.organization_id, table])


def _permitted_tables(request: HttpRequest) -> dict[str, Table]:
    return {name: each for name, each in TABLES.items() if request.user.has_perms(each.permissions)}


def backtest_page(request: HttpRequest, organization_id: UUID) -> TemplateResponse:
    """Show what a limit would have refused, by default in the period before this one."""
    require(request, ORGANIZATION_USAGE)
    account = _account(request, organization_id)
    timeline = load_timelines([account.pk])[account.pk]
    now = timezone.now()
    periods = reports.periods_of(account, timeline, now)
    start = requested_time(request.GET, timeline, now) or periods[min(1, len(periods) - 1)].start
    form = BacktestForm(request.GET if "limit" in request.GET else None)
    report = None
    if form.is_valid():
        report = reports.backtest(account, start, form.cleaned_data["limit"])
    context = _frame(account, periods, None, _zone(timeline.current)) | {
        "title": f"What a limit would have refused: {account.organization}",
        "form": form,
        "report": report,
        "refusals": joined(report.result.refused) if report else [],
        "chosen": timeline.period_at(start),
    }
    return report_page(request, "console/backtest.html", context)


def _day_rows(usage: PeriodUsage) -> list[dict[str, Any]]:
    """Return the rows of the table by day. Each column is rounded so that it adds up."""
    products = [
        _column(day.products.get(product, NOTHING) for day in usage.days)
        for product in usage.products
    ]
    every = _column(day.used for day in usage.days)
    return [
        {
            "day": day.day,
            "products": [column[at] for column in products],
            "all": every[at],
            "used": day.used,
        }
        for at, day in enumerate(usage.days)
    ]


def _column(used: Iterable[Used]) -> list[tuple[str, int]]:
    """Return what is shown of each amount, and the amount."""
    amounts = [each.credits_micro for each in used]
    return list(zip(displayed(amounts), amounts, strict=True))


def _total(usage: PeriodUsage, product: str) -> Used:
    return sum((day.products.get(product, NOTHING) for day in usage.days), NOTHING)


def _frame(account: Account, periods: Any, usage: Any, zone: str) -> dict[str, Any]:
    return {
        "account": account,
        "organization": account.organization,
        "zone": zone,
        "resource": RESOURCES[account.resource],
        "resources": RESOURCES.values(),
        "periods": periods,
        "chosen": usage.period if usage else None,
        "opts": Organization._meta,
    }


def _zone(limit: Limit | None) -> str:
    return limit.time_zone if limit else "UTC"


def _account(request: HttpRequest, organization_id: UUID) -> Account:
    resource = request.GET.get("resource", AI_CREDITS)
    if resource not in RESOURCES:
        raise Http404
    accounts = Account.objects.select_related("organization")
    return get_object_or_404(accounts, organization=organization_id, resource=resource)
