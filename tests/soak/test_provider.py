"""The provider of the soak answers calls and records what they cost."""

from decimal import Decimal

from tests.devstack.stack import http
from tests.soak.provider import PRICES, Provider


def test_the_provider_answers_a_call_and_records_its_cost():
    with Provider(seed=1) as provider:
        provider.answers.calm = True
        question = {"role": "user", "content": "hello #m1"}
        body = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [question]}
        status, answer = http(f"{provider.url}/v1/messages", body)
        [charge] = provider.book.charges()
    usage = answer["usage"]
    price_in, price_out = PRICES["claude-haiku-4-5"]
    assert status == 200
    assert charge.tags == ("#m1",)
    assert charge.dollars == usage["input_tokens"] * price_in + usage["output_tokens"] * price_out
    assert charge.dollars > Decimal(0)
    assert charge.answered
