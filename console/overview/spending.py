"""What all organizations used this month, compared with the last one, and who used most."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.urls import reverse

from billing.reports.sums import NOTHING, Used
from billing.reports.usage_sums import (
    MonthUsage,
    OverallUsage,
    month_of,
    next_month,
    overall_usage,
)
from console.charts import chart, dataset
from console.usage.dimensions import Dimension, Label
from projects.models import Organization
from quota.resources import RESOURCES

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Spending:
    """This month and the last one, both in UTC."""

    now: datetime
    usage: OverallUsage

    @property
    def this(self) -> MonthUsage:
        """What was used this month."""
        return self.usage.this

    @property
    def last(self) -> MonthUsage:
        """What was used in the last month."""
        return self.usage.last

    @property
    def today(self) -> Used:
        """What was used today."""
        return sum(self.this.days.get(self.now.date(), {}).values(), NOTHING)

    @property
    def whole_days(self) -> int:
        """How many whole days of this month are compared with the last month."""
        return (self.now.date() - self.this.month).days

    @property
    def before(self) -> Used:
        """What was used on the same days of the last month."""
        return self.last.used_before(self.last.month + timedelta(days=self.whole_days))

    @property
    def change_percent(self) -> int | None:
        """By how many percent the whole days differ from those of the last month.

        None if there is nothing to compare with.
        """
        before = self.before.credits_micro
        if not self.whole_days or before <= 0:
            return None
        now = self.this.used_before(self.now.date()).credits_micro
        return round((now - before) * 100 / before)

    @property
    def change(self) -> str:
        """The change in words, or an empty text."""
        percent = self.change_percent
        if percent is None:
            return ""
        if percent == 0:
            return "as much as"
        return f"{abs(percent):,} % {'more' if percent > 0 else 'less'} than"

    @property
    def day_rows(self) -> list[tuple[date, Used, Used]]:
        """Each day until today, what was used, and what was used on that day of the last month."""
        return [
            (day, _of_day(self.this, day), _of_day(self.last, _a_month_earlier(self, day)))
            for day in _days(self.this.month, self.now.date())
        ]


def spending(now: datetime) -> Spending:
    """Return what was used, with the organizations, users and models that used most."""
    return Spending(now, overall_usage(month_of(now.astimezone(UTC).date()), SHOWN))


def spending_chart(spent: Spending) -> dict[str, Any]:
    """Return the chart of this month's days, with the last month as a line."""
    days = list(_days(spent.this.month, next_month(spent.this.month) - timedelta(days=1)))
    used = {resource for of_day in spent.this.days.values() for resource in of_day}
    sets = [
        dataset(
            title.title,
            [spent.this.days.get(day, {}).get(name, NOTHING).credits_micro for day in days],
            kind="bar",
        )
        for name, title in RESOURCES.items()
        if name in used
    ]
    earlier = [_of_day(spent.last, _a_month_earlier(spent, day)).credits_micro for day in days]
    if any(earlier):
        sets.append(dataset("a month earlier", earlier, kind="earlier"))
    return chart("bar", "credits per day", days, sets)


def _organizations(keys: Sequence[str]) -> dict[str, Label]:
    names = {str(pk): str(row) for pk, row in Organization.objects.in_bulk(keys).items()}
    return {
        key: Label(
            names.get(key, key),
            link=reverse("admin:projects_organization_usage", args=[key]),
            values=(key, names.get(key, "")),
        )
        for key in keys
    }


ORGANIZATIONS = Dimension("Organization", "organization", ("organization", "name"), _organizations)


def _of_day(usage: MonthUsage, day: date) -> Used:
    return sum(usage.days.get(day, {}).values(), NOTHING)


def _a_month_earlier(spent: Spending, day: date) -> date:
    """Return the day of the last month with the same number, or a day after its end."""
    earlier = spent.last.month + (day - spent.this.month)
    return earlier if month_of(earlier) == spent.last.month else date.max


def _days(first: date, last: date) -> Iterable[date]:
    return (first + timedelta(days=number) for number in range((last - first).days + 1))
