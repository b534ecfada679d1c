"""The gateway has the same reasons as the rest of the system."""

from gateway.refusals.reasons import Reason as GatewayReason
from quota.reasons import Reason


def test_the_gateway_knows_the_same_reasons():
    assert {reason.name: reason.value for reason in GatewayReason} == {
        reason.name: reason.value for reason in Reason
    }
