"""Parse the body of `POST /api/usage_events/`: check its size, unpack it and read its items."""

import json
import zlib
from collections.abc import Mapping
from decimal import Decimal
from typing import IO, Any, cast

from django.http import HttpRequest
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError, UnsupportedMediaType
from rest_framework.parsers import BaseParser

MAXIMUM_BYTES = 5_000_000
MAXIMUM_EVENTS = 1_000
MAXIMUM_DISCARDED = 50_000_000
_GZIP = zlib.MAX_WBITS | 16
_LONGEST_INTEGER = 100


class BatchTooLarge(APIException):
    """The batch is too large: the sender should split it."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = (
        f"A batch has at most {MAXIMUM_EVENTS:,} events and {MAXIMUM_BYTES:,} bytes, unpacked."
    )
    default_code = "too_large"


class BatchParser(BaseParser):
    """Parses JSON, gzipped or not. Numbers with a fraction become exact `Decimal`s, not floats."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, list[Any]]:
        """Return `{"batch": items}`. The items aren't validated.

        Raises `BatchTooLarge`, `UnsupportedMediaType` if the encoding is unknown, and `ParseError`
        if the body isn't a batch.
        """
        headers = cast(HttpRequest, stream).META
        body = stream.read(MAXIMUM_BYTES + 1)
        if len(body) > MAXIMUM_BYTES:
            # Read the rest before refusing. Otherwise the sender would see a broken connection
            # instead of an answer, and would send the same batch again.
            _discard(stream)
            raise BatchTooLarge
        items = _items(_parsed(_unpacked(body, headers.get("HTTP_CONTENT_ENCODING", ""))))
        if len(items) > MAXIMUM_EVENTS:
            raise BatchTooLarge
        return {"batch": items}


def _discard(stream: IO[Any]) -> None:
    for _ in range(MAXIMUM_DISCARDED // MAXIMUM_BYTES):
        if not stream.read(MAXIMUM_BYTES):
            return


def _unpacked(body: bytes, encoding: str) -> bytes:
    """Return the body without its content encoding. Unpacking stops at a batch's size limit."""
    if encoding.strip().lower() in ("", "identity"):
        return body
    if encoding.strip().lower() != "gzip":
        raise UnsupportedMediaType(encoding, "Content-Encoding is gzip or absent.")
    unpacker = zlib.decompressobj(_GZIP)
    try:
        unpacked = unpacker.decompress(body, MAXIMUM_BYTES + 1)
    except zlib.error as error:
        raise ParseError("The body is not gzip.") from error
    if len(unpacked) > MAXIMUM_BYTES:
        raise BatchTooLarge
    if not unpacker.eof or unpacker.unused_data:
        raise ParseError("The body is not one complete gzip member.")
    return unpacked


def parse_json(text: str) -> Any:
    """Return parsed JSON, with fractions as `Decimal`, and NaN and absurdly long numbers as text.

    Raises `ValueError`, or `RecursionError` if it is nested too deeply.
    """
    return json.loads(text, parse_float=_fraction, parse_int=_integer, parse_constant=str)


def parse_stored(text: str) -> Any:
    """Return an item from its stored payload, None if it is nested too deeply."""
    try:
        return parse_json(text)
    except RecursionError:
        return None


def _parsed(body: bytes) -> Any:
    try:
        return parse_json(body.decode())
    except RecursionError:
        raise ParseError("The JSON is nested too deeply.") from None
    except ValueError as error:
        raise ParseError("The body is not JSON in UTF-8.") from error


def _integer(digits: str) -> int | str:
    # Converting a long number takes quadratic time.
    return int(digits) if len(digits) <= _LONGEST_INTEGER else digits


def _fraction(digits: str) -> Decimal | str:
    try:
        return Decimal(digits)
    except ArithmeticError:  # the exponent is too large
        return digits


def _items(parsed: Any) -> list[Any]:
    batch = parsed.get("batch") if isinstance(parsed, dict) else parsed
    if not isinstance(batch, list):
        raise ParseError('The body must be {"batch": [event, …]} or [event, …].')
    return batch
