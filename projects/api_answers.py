"""What the OpenAPI document says about answers that every endpoint can give."""

from collections.abc import Mapping
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, inline_serializer
from rest_framework import serializers

PROBLEM = inline_serializer("Problem", {"detail": serializers.CharField()})

PROJECT_ID = OpenApiParameter(
    "project_id",
    {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**63 - 1},
    OpenApiParameter.PATH,
    description="The number of a project.",
)

Answers = Mapping[Any, Any]


def problem(description: str) -> OpenApiResponse:
    """Return the documentation of a refusal."""
    return OpenApiResponse(PROBLEM, description)


def mistake(description: str) -> OpenApiResponse:
    """Return the documentation of a refusal that says what is wrong, field by field."""
    return OpenApiResponse(OpenApiTypes.OBJECT, description)


def answers(of_its_own: Answers) -> dict[Any, Any]:
    """Return the answers of an endpoint, with those that all endpoints give."""
    common = {
        400: mistake("What was asked makes no sense: says what, by name."),
        401: problem("No credential, or one that is not valid."),
        406: problem("JSON is all there is, and the caller does not accept it."),
        503: problem("The database does not answer."),
    }
    return common | dict(of_its_own)


def response_headers(of_its_own: Answers) -> list[OpenApiParameter]:
    """Return the headers of an endpoint's answers."""
    waits = [str(status) for status in (429, 503) if status in answers(of_its_own)]
    return [
        OpenApiParameter(
            "WWW-Authenticate",
            str,
            OpenApiParameter.HEADER,
            response=["401"],
            description="The scheme that is wanted: Bearer.",
        ),
        OpenApiParameter(
            "Retry-After",
            {"type": "integer", "minimum": 1},
            OpenApiParameter.HEADER,
            response=waits,
            description="Seconds to wait before asking again.",
        ),
    ]
