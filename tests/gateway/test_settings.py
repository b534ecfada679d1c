"""How the gateway reads its settings from the environment."""

from decimal import Decimal

import pytest
from environs import EnvValidationError

from gateway import settings


@pytest.mark.parametrize(("written", "cap"), [("", None), ("2.5", Decimal("2.5"))])
def test_an_empty_run_cap_means_none(monkeypatch: pytest.MonkeyPatch, written, cap) -> None:
    monkeypatch.setenv("GATEWAY_SERVICE_TOKEN", "secret")
    monkeypatch.setenv("GATEWAY_RUN_CAP_CREDITS", written)
    assert settings.from_environment().run_cap_credits == cap


def test_all_mistakes_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_SERVICE_TOKEN", "secret")
    monkeypatch.setenv("GATEWAY_RUN_CAP_CREDITS", "many")
    monkeypatch.setenv("GATEWAY_PRICE_OVERRIDES", "cheap")
    monkeypatch.setenv("GATEWAY_DENIAL_STATUS", "messages=500")
    with pytest.raises(EnvValidationError) as mistakes:
        settings.from_environment()
    assert mistakes.value.error_messages.keys() == {
        "GATEWAY_RUN_CAP_CREDITS",
        "GATEWAY_PRICE_OVERRIDES",
        "GATEWAY_DENIAL_STATUS",
    }


def test_the_body_budget_has_to_fit_the_largest_body(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEWAY_SERVICE_TOKEN", "secret")
    monkeypatch.setenv("GATEWAY_MAX_BODY_BYTES", "2000")
    monkeypatch.setenv("GATEWAY_BODY_BUDGET", "1999")
    with pytest.raises(EnvValidationError, match="GATEWAY_BODY_BUDGET"):
        settings.from_environment()
