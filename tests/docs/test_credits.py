"""The examples in `docs/credits.md` are what the gateway and billing compute."""

import re
from decimal import Decimal
from pathlib import Path

import pytest

from billing.credits import credits_micro, exact, exact_dollars
from gateway.metering.usage import Usage
from gateway.money.prices import Prices
from quota.resources import RESOURCES

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "credits.md").read_text()
CELL = r" *([^|]+?) *\|"
EXAMPLES = re.findall(rf"^\| `([a-z0-9.-]+)` \|{CELL * 8}$", TEXT, re.M)
BUCKETS = re.findall(rf"^\| [^|]+ \(`(\w+)`\) \|{CELL * 3}$", TEXT, re.M)


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_there_are_examples_of_each_bucket():
    assert {example[6].strip("`") for example in EXAMPLES} == set(RESOURCES)
    assert len(EXAMPLES) == 5


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example[0]} {example[6]}")
def test_an_example_is_what_the_code_computes(example):
    model, plain, read, written, output, price, resource, credits, worth = example
    resource = resource.strip("`")
    usage = Usage(
        input=number(plain),
        cache_read=number(read),
        cache_write_5m=number(written),
        output=number(output),
    )
    provider = "openai" if model.startswith("gpt") else "anthropic"
    cost = Prices({}).rates(provider, model).cost(usage)
    micro = credits_micro(cost, resource)

    assert cost == Decimal(price.removeprefix("$"))
    assert exact(micro) == credits
    assert Decimal(exact_dollars(micro)) == Decimal(worth.removeprefix("$"))


def test_the_markups_are_those_of_the_buckets():
    assert {name for name, *_ in BUCKETS} == set(RESOURCES)
    for name, markup, per_usd, share in BUCKETS:
        resource = RESOURCES[name]
        assert markup == f"{resource.markup_percent} %"
        assert Decimal(per_usd) == resource.credits_per_usd
        assert Decimal(share.removeprefix("$")) == round(1 / resource.credits_per_usd, 6)
