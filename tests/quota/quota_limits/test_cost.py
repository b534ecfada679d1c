"""`GET /api/projects/<id>/quota_limits/`: how many queries and round trips one answer costs."""

import socket
import threading

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.quota.quota_limits.requests import ai_credits

pytestmark = pytest.mark.django_db


class RoundTrips:
    """Counts this thread's writes to Redis. The database drivers use no Python sockets."""

    def __init__(self, monkeypatch) -> None:
        self.count = 0
        original, own = socket.socket.sendall, threading.get_ident()

        def counting(sock, *args):
            self.count += threading.get_ident() == own
            return original(sock, *args)

        monkeypatch.setattr(socket.socket, "sendall", counting)


def test_a_known_credential_costs_no_query_and_one_round_trip(
    ask, accounts, project, trusted_redis, monkeypatch
):
    accounts.limit()
    trusted_redis()
    assert ask(project).status_code == 200
    trips = RoundTrips(monkeypatch)
    with CaptureQueriesContext(connection) as queries:
        response = ask(project)
    assert ai_credits(response)["limited"] is True
    assert (len(queries), trips.count) == (0, 1)
