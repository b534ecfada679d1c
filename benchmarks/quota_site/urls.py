"""The product's paths and two empty views."""

import os

from django.urls import include, path
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from projects.principal import Kind, Principal
from projects.tokens import sha256

KNOWN = {sha256(os.environ["BENCHMARK_KEY"]): Principal(Kind.PERSONAL_API_KEY)}


class DictionaryAuthentication(BaseAuthentication):
    """The least that can be called authentication, without any store."""

    def authenticate(self, request: Request) -> tuple[Principal, None] | None:
        """Look the bearer token up in this process's memory."""
        _, _, token = get_authorization_header(request).decode().partition(" ")
        principal = KNOWN.get(sha256(token))
        return None if principal is None else (principal, None)


class EmptyView(APIView):
    """Only the framework and the product's authentication, which is the default."""

    def get(self, _request: Request) -> Response:
        """Answer with an empty object."""
        return Response({})


class BareView(EmptyView):
    """Only the framework."""

    authentication_classes = [DictionaryAuthentication]


urlpatterns = [
    path("empty/", EmptyView.as_view()),
    path("bare/", BareView.as_view()),
    path("", include("config.urls")),
]
