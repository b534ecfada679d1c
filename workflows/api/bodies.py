"""What the endpoints read: bodies, and the idempotency key. The API's description has the rules."""

import re
from typing import Any

from django.core.validators import RegexValidator
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.parsers import JSONParser
from rest_framework.request import Request

from coding_tasks.agent_choice import known_agents
from coding_tasks.models import CodingTask

LONGEST_TEXT = 20_000
"""Characters. Any text of this length fits into an agent's prompt."""
LONGEST_KEY = 255
"""Characters."""
FULL_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.][A-Za-z0-9_.-]*$"
MODEL = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,99}$"
TEXT = r"^[^\x00]*[^\s\x00][^\x00]*$"
KEY = r"^[\x21-\x7e]{1,255}$"
ORIGINS = (CodingTask.Origin.API.value, CodingTask.Origin.DESKTOP.value)
_LARGEST_ID = 2**63 - 1


class ShallowJSONParser(JSONParser):
    """Rejects JSON that is nested too deeply with a 400."""

    def parse(self, *arguments: Any, **options: Any) -> Any:
        """Return the parsed body. Raises `ParseError`."""
        try:
            return super().parse(*arguments, **options)
        except RecursionError as error:
            raise ParseError("The JSON is nested too deeply.") from error


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string", "pattern": FULL_NAME, "maxLength": 200},
            {"type": "integer", "format": "int64", "minimum": 1, "maximum": _LARGEST_ID},
        ]
    }
)
class RepositoryField(serializers.Field[Any, Any, Any, Any]):
    """A repository of the project: `owner/name`, or its number."""

    def to_internal_value(self, data: Any) -> str | int:
        """Return the name or the number."""
        if isinstance(data, str) and len(data) <= 200 and re.fullmatch(FULL_NAME, data):
            return data
        if type(data) is int and 0 < data <= _LARGEST_ID:
            return data
        raise ValidationError("Write the repository as owner/name, or its number.")

    def to_representation(self, value: Any) -> Any:
        """Return the value as it is."""
        return value


@extend_schema_field({"type": "string", "minLength": 1, "maxLength": LONGEST_TEXT, "pattern": TEXT})
class TextField(serializers.CharField):
    """What to do, in words."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            max_length=LONGEST_TEXT,
            trim_whitespace=False,
            validators=[RegexValidator(r"\S", "Say what to do.")],
            **options,
        )


@extend_schema_field({"type": "string", "maxLength": 100, "pattern": MODEL})
class ModelField(serializers.CharField):
    """The name of a model."""

    def to_internal_value(self, data: Any) -> str:
        """Return the name."""
        name = str(super().to_internal_value(data))
        if not re.fullmatch(MODEL, name):
            raise ValidationError("This is not the name of a model.")
        return name


@extend_schema_field({"type": "string", "enum": sorted(known_agents())})
class AgentField(serializers.CharField):
    """One of this server's agents."""

    def to_internal_value(self, data: Any) -> str:
        """Return the name."""
        name = str(super().to_internal_value(data))
        if name not in known_agents():
            raise ValidationError(f"Choose one of these: {', '.join(sorted(known_agents()))}.")
        return name


class NewTaskBody(serializers.Serializer[Any]):
    """The body that starts a task."""

    repository = RepositoryField(help_text="`owner/name`, or the repository's number.")
    text = TextField(help_text="What to do.")
    agent = AgentField(required=False, help_text="The project's, if absent.")
    model = ModelField(required=False, trim_whitespace=False, help_text="The project's, if absent.")
    origin = serializers.ChoiceField(
        ORIGINS, default=CodingTask.Origin.API.value, help_text="Where the owner asked for it."
    )


class MessageBody(serializers.Serializer[Any]):
    """The body that continues a task."""

    text = TextField(help_text="What to do next.")


def idempotency_key(request: Request) -> str:
    """Return the request's idempotency key, or "" if it has none. Raises `ValidationError`."""
    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is None:
        return ""
    if not re.fullmatch(KEY, key):
        raise ValidationError(
            {"Idempotency-Key": f"Use 1 to {LONGEST_KEY} visible ASCII characters."}
        )
    return str(key)
