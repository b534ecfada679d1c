"""The charts of an organization's usage."""

from datetime import timedelta
from typing import Any

from billing.credits import display
from billing.products import TITLES
from billing.reports.forecast import Kind, usage_within
from console.charts import chart, dataset
from console.usage.organization import OrganizationUsage

MAX_LIMIT_RATIO = 4
"""A limit of more than this many times the usage is not drawn: it would flatten the rest."""


def charts(report: OrganizationUsage) -> dict[str, Any]:
    """Return the charts of an organization's usage by the ids of their canvases."""
    shown = {"chart-so-far": _so_far(report), "chart-by-day": _by_day(report)}
    if report.grants:
        shown["chart-top-ups"] = _top_ups(report)
    return shown


def limit_is_drawn(report: OrganizationUsage) -> bool:
    """Return whether the limit is low enough to be drawn."""
    limit = report.usage.limit_micro
    return limit is not None and limit <= MAX_LIMIT_RATIO * max(_highest(report), 1)


def _so_far(report: OrganizationUsage) -> dict[str, Any]:
    days = report.usage.days
    sets = []
    for product in report.usage.products:
        used, amounts = 0, []
        for day in days:
            if day.day > report.now.date():
                break
            used += day.products[product].credits_micro if product in day.products else 0
            amounts.append(used)
        sets.append(dataset(TITLES.get(product, product), amounts, kind="area"))
    if limit_is_drawn(report):
        limit = report.usage.limit_micro or 0
        label = f"limit: {display(limit)}"
        sets.append(dataset(label, [limit] * len(days), kind="limit"))
    if report.grants and limit_is_drawn(report):
        available = _available(report)
        label = f"limit and top-ups: {display(available[-1])}"
        sets.append(dataset(label, available, kind="available"))
    projected = _projected(report)
    if projected:
        sets.append(dataset("if it goes on like this", projected, kind="forecast"))
    return chart("line", "credits since the period began", (day.day for day in days), sets)


def _by_day(report: OrganizationUsage) -> dict[str, Any]:
    days = report.usage.days
    sets = [
        dataset(
            TITLES.get(product, product),
            [day.products[product].credits_micro if product in day.products else 0 for day in days],
            kind="bar",
        )
        for product in report.usage.products
    ]
    return chart("bar", "credits per day", (day.day for day in days), sets)


def _top_ups(report: OrganizationUsage) -> dict[str, Any]:
    days = [day.day for day in report.usage.days]
    sets = [
        dataset(
            f"{display(row.grant.amount_micro)} of {row.grant.starts_at:%Y-%m-%d}",
            [row.by_day.get(day) for day in days],
            kind="area",
        )
        for row, _ in report.grants
    ]
    return chart("line", "credits left of top-ups", days, sets)


def _available(report: OrganizationUsage) -> list[int]:
    """Return what could be used by each day: the limit and what was left of top-ups."""
    limit = report.usage.limit_micro or 0
    amounts = []
    for day in report.usage.days:
        begun = [row for row, _ in report.grants if min(row.by_day) <= day.day]
        lost = sum(row.lost for row in begun if max(row.by_day) < day.day)
        amounts.append(limit + sum(row.at_start for row in begun) - lost)
    return amounts


def _projected(report: OrganizationUsage) -> list[int | None]:
    forecast = report.forecast
    if forecast is None or forecast.kind not in (Kind.RUNS_OUT, Kind.NOT_IN_PERIOD, Kind.UNLIMITED):
        return []
    if not forecast.daily_mean_micro:
        return []
    used = report.usage.used.credits_micro
    today = report.now.date()
    begun = report.now - report.now.replace(hour=0, minute=0, second=0, microsecond=0)
    rest_of_today = usage_within(forecast.daily_mean_micro, timedelta(days=1) - begun)
    projected: list[int | None] = []
    for day in report.usage.days:
        if day.day < today:
            projected.append(None)
            continue
        used += rest_of_today if day.day == today else forecast.daily_mean_micro
        projected.append(used)
    return projected


def _highest(report: OrganizationUsage) -> int:
    projected = [amount for amount in _projected(report) if amount is not None]
    return max([report.usage.used.credits_micro, *projected])
