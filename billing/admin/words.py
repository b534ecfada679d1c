"""Readable words for products, buckets, reasons and entries of the audit trail."""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList

from billing.credits import display
from billing.ingestion.events import QuarantineReason
from billing.models import AuditEntry
from billing.products import TITLES
from quota.moments import moment
from quota.reason_words import WORDS as REASONS
from quota.resources import RESOURCES

BUCKETS = {name: resource.title for name, resource in RESOURCES.items()}
QUARANTINE_REASONS: dict[str, str] = {
    QuarantineReason.NOT_AN_EVENT: "it is not an event",
    QuarantineReason.EVENT_UNKNOWN: "it is an event of another kind",
    QuarantineReason.UUID_INVALID: "its id is not a UUID",
    QuarantineReason.TIMESTAMP_INVALID: "its time can't be read",
    QuarantineReason.TIMESTAMP_TOO_OLD: "it is too old",
    QuarantineReason.TIMESTAMP_IN_FUTURE: "its time is in the future",
    QuarantineReason.PROJECT_MISSING: "it names no project",
    QuarantineReason.PROJECT_INVALID: "its project is not a number",
    QuarantineReason.PROJECT_UNKNOWN: "there is no such project",
    QuarantineReason.ORGANIZATION_MISMATCH: "its project belongs to another organization",
    QuarantineReason.ACCOUNT_MISMATCH: "another account should pay for it",
    QuarantineReason.PRODUCT_UNKNOWN: "there is no such product",
    QuarantineReason.BILLABLE_INVALID: "it doesn't say whether it is billable",
    QuarantineReason.COST_MISSING: "it has no cost",
    QuarantineReason.COST_INVALID: "its cost is not an amount",
    QuarantineReason.GROUP_INVALID: "its gateway group can't be read",
    QuarantineReason.DEBIT_INVALID: "its debit is not an amount",
    QuarantineReason.ACCOUNT_UNDECIDABLE: "the decision about its account failed",
    QuarantineReason.CONFLICT: "an event of the same id says something else",
    QuarantineReason.CORRECTED_EVENT_UNKNOWN: "the event that it corrects is not known",
    QuarantineReason.CORRECTED_EVENT_INVALID: "what it corrects can't be corrected",
    QuarantineReason.PROJECT_MISMATCH: "it belongs to another project than what it corrects",
}
_CAPITALS = re.compile(r"(?<=[a-z])(?=[A-Z])")


def in_words(words: Mapping[str, str], name: str) -> str:
    """Return the words for a name. Words for an unknown name are made from the name itself."""
    return words.get(name) or _CAPITALS.sub(" ", name).replace("_", " ").lower()


def words_column(attribute: str, description: str, words: Mapping[str, str]) -> Any:
    """Return an admin column or field that shows a name in words."""

    @admin.display(description=description, ordering=attribute, empty_value="–")
    def column(_page: Any, row: Any) -> str:
        return in_words(words, getattr(row, attribute))

    return column


class WordsFilter(admin.ChoicesFieldListFilter):
    """A filter with one choice for each name in `words`. Listing the choices needs no query."""

    words: Mapping[str, str] = {}

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """Yield "All" and each name in words."""
        either = [self.lookup_kwarg, self.lookup_kwarg_isnull]
        chosen: Any = self.lookup_val or []
        yield {
            "selected": not chosen,
            "query_string": changelist.get_query_string(remove=either),
            "display": "All",
        }
        for name, title in self.words.items():
            yield {
                "selected": name in chosen,
                "query_string": changelist.get_query_string(
                    {self.lookup_kwarg: name}, [self.lookup_kwarg_isnull]
                ),
                "display": title,
            }


class ReasonFilter(WordsFilter):
    """Filters by the reason of a refusal."""

    words = REASONS


class ProductFilter(WordsFilter):
    """Filters by product."""

    words = TITLES


class BucketFilter(WordsFilter):
    """Filters by bucket."""

    words = BUCKETS


class QuarantineReasonFilter(WordsFilter):
    """Filters by the reason of a quarantine."""

    words = QUARANTINE_REASONS


def audit_sentence(entry: AuditEntry) -> str:
    """Return what an audit entry's details say, in one sentence."""
    details: dict[str, Any] = entry.details
    describe = _SENTENCES.get(entry.action, _of_others)
    return describe(details)


def _of_limit(details: dict[str, Any]) -> str:
    sentence = f"{_amount(details.get('limit_micro'))} per period for {_bucket(details)}"
    if "previous_limit_micro" in details:
        sentence += f", before: {_amount(details['previous_limit_micro'])}"
    more = [str(details.get("mode", ""))]
    if details.get("grace_days"):
        more.append(f"{details['grace_days']} days of grace")
    if details.get("anchor_day"):
        zone = details.get("time_zone", "UTC")
        more.append(f"periods from day {details['anchor_day']} of the month, {zone}")
    return f"{sentence} ({', '.join(filter(None, more))})"


def _of_cap(details: dict[str, Any]) -> str:
    scope, subject = details.get("scope", ""), details.get("subject", "")
    whom = f"{scope} {subject}" if subject else f"each {scope} without a cap of its own"
    cap = details.get("cap_micro")
    amount = "not capped" if cap is None else f"at most {display(cap)} credits"
    return f"{whom}: {amount} of {_bucket(details)}"


def _of_grant(details: dict[str, Any]) -> str:
    sentence = f"{display(details.get('amount_micro'))} {_bucket(details)}"
    if details.get("starts_at"):
        sentence += f" from {_moment(details['starts_at'])}"
    if details.get("expires_at"):
        sentence += f" until {_moment(details['expires_at'])}"
    return sentence


def _of_others(details: dict[str, Any]) -> str:
    parts = []
    if details.get("credits_micro") is not None:
        parts.append(f"{display(details['credits_micro'])} credits given back")
    if details.get("resource"):
        parts.append(_bucket(details))
    parts += (f"{title} {details[name]}" for name, title in _NAMES.items() if details.get(name))
    return ", ".join(parts) or "–"


_NAMES = {
    "name": "workspace",
    "label": "key",
    "mask": "shown as",
    "scopes": "with scopes",
    "made_for": "for",
    "grant": "top-up",
    "project": "project",
    "run": "run",
    "event": "event",
    "uuid": "event",
}
_SENTENCES: dict[str, Callable[[dict[str, Any]], str]] = {
    AuditEntry.Action.LIMIT_SET: _of_limit,
    AuditEntry.Action.CAP_SET: _of_cap,
    AuditEntry.Action.CREDITS_GRANTED: _of_grant,
}


def _amount(micro: int | None) -> str:
    return "unlimited" if micro is None else f"{display(micro)} credits"


def _bucket(details: dict[str, Any]) -> str:
    return in_words(BUCKETS, str(details.get("resource", "")))


def _moment(text: str) -> str:
    return moment(datetime.fromisoformat(text))
