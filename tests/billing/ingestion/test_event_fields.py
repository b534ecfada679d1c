"""What counts as a value of a descriptive field, and what a payload's text is."""

import uuid
from decimal import Decimal

import pytest

from billing.ingestion.batches import parse_json
from billing.ingestion.events import (
    NestedTooDeeply,
    canonical,
    corrected_uuid,
    count,
    http_status,
    milliseconds,
    text,
)


@pytest.mark.parametrize("number", [0, 1, 10**12])
def test_a_whole_number_of_a_plausible_size_is_a_count(number):
    assert count(number) == number


@pytest.mark.parametrize("number", [-1, 10**12 + 1, True, "1", 1.0, Decimal(1), None])
def test_anything_else_is_not_a_count(number):
    assert count(number) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("four", "four"),
        ("fours", "four"),
        ("a\0b", "a\ufffdb"),
        ("\ud800", "?"),
        ("éééé\0", "éééé"),
        (4, ""),
        (None, ""),
    ],
)
def test_a_text_is_cut_and_has_only_what_a_column_can_hold(value, expected):
    assert text(value, 4) == expected


@pytest.mark.parametrize("status", [100, 200, 999])
def test_a_number_of_three_digits_is_an_http_status(status):
    assert http_status(status) == status


@pytest.mark.parametrize("status", [99, 1000, -200, "200", True, 200.0, None])
def test_anything_else_is_no_http_status(status):
    assert http_status(status) is None


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, 0),
        (3, 3000),
        (Decimal("0.0004"), 0),
        (Decimal("0.25"), 250),
        ("1.25", 1250),
        (10**9 - 1, (10**9 - 1) * 1000),
    ],
)
def test_a_duration_is_kept_in_milliseconds(seconds, expected):
    assert milliseconds(seconds) == expected


@pytest.mark.parametrize("seconds", [-1, Decimal("-0.001"), 10**9, True, "x", "", None, 1.5, []])
def test_anything_else_is_no_duration(seconds):
    assert milliseconds(seconds) is None


def test_a_payload_nested_too_deeply_has_no_text():
    item = []
    for _ in range(100_000):
        item = [item]
    with pytest.raises(NestedTooDeeply):
        canonical(item)
    while item:  # freed step by step
        item = item[0]


def test_a_number_with_more_than_a_hundred_digits_stays_text():
    digits = "9" * 100
    assert parse_json(digits) == int(digits)
    assert parse_json(digits + "9") == digits + "9"


def test_a_fraction_with_too_large_an_exponent_stays_text():
    assert parse_json("1e9999999999999999999") == "1e9999999999999999999"


@pytest.mark.parametrize("junk", [None, "text", [], {}, {"hold_id": 7}, {"hold_id": "nonsense"}])
def test_junk_corrects_no_event(junk):
    assert corrected_uuid(junk) is None


def test_an_item_corrects_the_event_of_its_hold():
    assert corrected_uuid({"hold_id": str(uuid.UUID(int=7))}) == uuid.UUID(int=7)
