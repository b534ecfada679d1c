"""What the gateway delivers: usage (`POST /api/usage_events/`), remainders that are too small."""

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

from billing import schema
from billing.ingestion import insufficient_remaining, ledger
from billing.ingestion.batches import BatchParser
from billing.ingestion.events import NestedTooDeeply
from billing.models import Account
from billing.retries import DatabaseBusy
from projects.authentication import ServiceTokenAuthentication
from projects.permissions import IsService

CONCURRENT_BATCHES = 4
PATIENCE_SECONDS = 1.0

_places = threading.BoundedSemaphore(CONCURRENT_BATCHES)


class Overloaded(APIException):
    """The database does not keep up: 429 with Retry-After. Nothing of the batch was booked."""

    status_code = status.HTTP_429_TOO_MANY_REQUESTS
    default_detail = "Nothing was booked: the ledger does not keep up. Send the batch again."
    default_code = "overloaded"
    wait = 2


class LedgerUnavailable(APIException):
    """The database does not answer: 503 with Retry-After. Nothing of the batch was booked."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = "Nothing was booked: the ledger does not answer. Send the batch again."
    default_code = "unavailable"
    wait = 5


class UsageEventsView(APIView):
    """Booking of `$ai_generation` events. Sending a batch again is always safe."""

    authentication_classes = [ServiceTokenAuthentication]
    permission_classes = [IsService]
    parser_classes = [BatchParser]

    @extend_schema(**schema.USAGE_EVENTS)
    def post(self, request: Request) -> HttpResponse:
        """Book a batch and answer item by item, in the order sent."""
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
    """What is left of an account turned out to pay for no call: a gateway tells, all gates obey."""

    authentication_classes = [ServiceTokenAuthentication]
    permission_classes = [IsService]

    @extend_schema(**schema.INSUFFICIENT_REMAINING)
    def post(self, request: Request) -> Response:
        """Limit the account until more is left, unless what is left suffices to start work."""
        told = schema.InsufficientRemainingSerializer(data=request.data)
        told.is_valid(raise_exception=True)
        try:
            limited = insufficient_remaining.report(**told.validated_data)
        except Account.DoesNotExist as error:
            raise NotFound("There is no such account.") from error
        except DatabaseBusy as error:
            raise Overloaded from error
        except DatabaseFailure as error:
            raise LedgerUnavailable from error
        return Response({"limited": limited})
