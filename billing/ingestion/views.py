"""The endpoints for the gateway: usage events, and reports that too little is left for a call."""

import json
import threading

from django.db import Error as DatabaseFailure
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.exceptions import APIException, NotFound, ParseError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.ingestion import insufficient_remaining, ledger, schema
from billing.ingestion.batches import BatchParser
from billing.ingestion.events import NestedTooDeeply
from billing.models import Account
from billing.retries import DatabaseBusy
from projects.authentication.permissions import IsService
from projects.authentication.schemes import ServiceTokenAuthentication

CONCURRENT_BATCHES = 4
PATIENCE_SECONDS = 1.0

_places = threading.BoundedSemaphore(CONCURRENT_BATCHES)


class Overloaded(APIException):
    """The database is too slow: 429 with Retry-After. Nothing in the batch was booked."""

    status_code = status.HTTP_429_TOO_MANY_REQUESTS
    default_detail = "Nothing was booked: the ledger is overloaded. Send the batch again."
    default_code = "overloaded"
    wait = 2


class LedgerUnavailable(APIException):
    """The database is unavailable: 503 with Retry-After. Nothing in the batch was booked."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = "Nothing was booked: the ledger is unavailable. Send the batch again."
    default_code = "unavailable"
    wait = 5


class UsageEventsView(APIView):
    """Books `$ai_generation` events. It is always safe to send a batch again."""

    authentication_classes = [ServiceTokenAuthentication]
    permission_classes = [IsService]
    parser_classes = [BatchParser]

    @extend_schema(**schema.USAGE_EVENTS)
    def post(self, request: Request) -> HttpResponse:
        """Book a batch and return a result for each item, in the order sent."""
        if "batch" not in request.data:
            raise ParseError("The body is empty.")
        items = dict(request.data)["batch"]
        if not _places.acquire(timeout=PATIENCE_SECONDS):
            raise Overloaded
        try:
            results = ledger.book(items)
        except DatabaseBusy as error:
            raise Overloaded from error
        except DatabaseFailure as error:
            raise LedgerUnavailable from error
        except NestedTooDeeply as error:
            raise ParseError("The JSON is nested too deeply.") from error
        finally:
            _places.release()
        answer = {
            "results": [
                {
                    "uuid": result.uuid,
                    "status": result.status,
                    "reason": result.reason,
                    "version": result.version,
                }
                for result in results
            ]
        }
        return HttpResponse(json.dumps(answer), content_type="application/json")


class InsufficientRemainingView(APIView):
    """Takes a gateway's report that what is left of an account can't pay for a call."""

    authentication_classes = [ServiceTokenAuthentication]
    permission_classes = [IsService]

    @extend_schema(**schema.INSUFFICIENT_REMAINING)
    def post(self, request: Request) -> Response:
        """Limit the account until more is left, unless enough is left to start work."""
        serializer = schema.InsufficientRemainingSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        try:
            limited = insufficient_remaining.report(**serializer.validated_data)
        except Account.DoesNotExist as error:
            raise NotFound("There is no such account.") from error
        except DatabaseBusy as error:
            raise Overloaded from error
        except DatabaseFailure as error:
            raise LedgerUnavailable from error
        return Response({"limited": limited})
