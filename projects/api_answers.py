"""The OpenAPI description of answers that every endpoint can give."""

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
    """Return the documentation of a refusal that names what is wrong with each field."""
    return OpenApiResponse(OpenApiTypes.OBJECT, description)


def answers(of_its_own: Answers) -> dict[Any, Any]:
    """Return the answers of an endpoint, with those that all endpoints give."""
    common = {
        400: mistake("The request is not valid. The answer names each wrong field."),
        401: problem("There is no credential, or it is not valid."),
        406: problem("The caller does not accept JSON."),
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
            description="The required scheme: Bearer.",
        ),
        OpenApiParameter(
            "Retry-After",
            {"type": "integer", "minimum": 1},
            OpenApiParameter.HEADER,
            response=waits,
            description="Seconds to wait before asking again.",
        ),
    ]
