"""`GET /api/projects/<id>/quota_limits/` and `GET /api/quota_changes/`."""

from collections.abc import Iterable

from django.db import Error as DatabaseFailure
from django.http import HttpResponse, HttpResponseNotModified
from django.utils.http import parse_etags
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import APIException
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from projects import credential_cache, query
from projects.authentication.permissions import IsService, covered_project, has_any_scope
from projects.authentication.schemes import (
    ServiceTokenAuthentication,
    SessionPrincipalAuthentication,
    UnconfirmedCredentialAuthentication,
    confirm,
)
from projects.principal import (
    LLM_GATEWAY_READ,
    PROJECT_READ,
    Kind,
    Principal,
    ProjectIdentity,
)
from quota import schema
from quota.published import limited_set
from quota.published.changes import changes_since
from quota.published.limited_set import Reading, RedisUnavailable
from quota.representation import render
from quota.state import QuotaUnknown, ServiceQuestion, standings, standings_from_database


class QuotaUnavailable(APIException):
    """No store can answer: 503 with Retry-After, so that no client reads it as "not limited"."""

    status_code = 503
    default_detail = "The project's limits cannot be read right now."
    default_code = "unavailable"
    wait = 5


class AlwaysJSON(BaseContentNegotiation):
    """Answers in JSON whatever the client accepts: that serves it better than a 406."""

    def select_parser(self, _request: Request, parsers: Iterable[BaseParser]) -> BaseParser:
        """Return the only parser."""
        return next(iter(parsers))

    def select_renderer(
        self,
        _request: Request,
        renderers: Iterable[BaseRenderer],
        _format_suffix: str | None = None,
    ) -> tuple[BaseRenderer, str]:
        """Return the only renderer."""
        renderer = next(iter(renderers))
        return renderer, str(renderer.media_type)


class QuotaLimitsView(APIView):
    """What a project may still use, by resource.

    A known credential costs one Redis round trip and no database query: the read that brings the
    scores also confirms the credential that this process has cached.
    """

    authentication_classes = [
        ServiceTokenAuthentication,
        UnconfirmedCredentialAuthentication,
        SessionPrincipalAuthentication,
    ]
    permission_classes = [has_any_scope(PROJECT_READ, LLM_GATEWAY_READ)]
    content_negotiation_class = AlwaysJSON

    @extend_schema(**schema.QUOTA_LIMITS)
    def get(self, request: Request, project_id: int) -> HttpResponse:
        """Return one project's limits, or 304 if nothing changed since the caller's entity tag."""
        identity, reading = self._identify(request, project_id)
        question = None
        if _principal(request).kind is Kind.SERVICE:
            question = ServiceQuestion(
                query.text(request, "group") or "", query.text(request, "user") or ""
            )
        try:
            found = (
                standings(identity, reading=reading)
                if question is None
                else standings_from_database(identity, reading=reading)
            )
            body, tag = render(identity, found, question)
        except QuotaUnknown as error:
            raise QuotaUnavailable from error
        response: HttpResponse
        if _matches(tag, request.META.get("HTTP_IF_NONE_MATCH")):
            response = HttpResponseNotModified()
        else:
            response = HttpResponse(body, content_type="application/json")
        response.headers["ETag"] = tag
        response.headers["Cache-Control"] = "private, no-cache"
        return response

    def _identify(
        self, request: Request, project_id: int
    ) -> tuple[ProjectIdentity, Reading | None]:
        """Return the project, if the caller may read it, and what Redis holds about it.

        The cached credential alone neither refuses nor admits anybody: it is confirmed first.
        """
        remembered = _principal(request).projects.get(project_id)
        if remembered is None:
            confirm(request, self, credential_cache.current_generation())
            remembered = covered_project(_principal(request), project_id)
        reading = _read(remembered)
        confirm(request, self, reading.generation if reading else None)
        identity = covered_project(_principal(request), project_id)
        return identity, reading if identity == remembered else _read(identity)


class QuotaChangesView(APIView):
    """The change feed that a gateway polls: whose quota to read again, and what was revoked."""

    authentication_classes = [ServiceTokenAuthentication]
    permission_classes = [IsService]

    @extend_schema(**schema.QUOTA_CHANGES)
    def get(self, request: Request) -> Response:
        """Return every change after the cursor."""
        since, feed = query.version(request, "since"), query.text(request, "feed")
        try:
            found = changes_since(since, feed)
        except DatabaseFailure as error:
            raise QuotaUnavailable from error
        return Response(
            {
                "version": found.version,
                "reset": found.is_reset,
                "feed": found.feed,
                "revoked": found.revoked,
                "changes": found.changes,
            }
        )


def _principal(request: Request) -> Principal:
    assert isinstance(request.user, Principal), "the permission classes let nobody else through"
    return request.user


def _read(identity: ProjectIdentity) -> Reading | None:
    try:
        return limited_set.read(identity.organization_id, identity.api_token)
    except RedisUnavailable:
        return None


def _matches(tag: str, if_none_match: str | None) -> bool:
    if if_none_match is None:
        return False
    known = parse_etags(if_none_match)
    return "*" in known or tag in (etag.removeprefix("W/") for etag in known)
