"""What an authenticated caller may do: scopes, the project in the path, service endpoints."""

from django.db import Error as DatabaseFailure
from django.http import Http404
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from projects.authentication.schemes import AuthenticationUnavailable
from projects.models import Project
from projects.principal import Kind, Principal, ProjectIdentity


class IsService(BasePermission):
    """Allows only the gateway, with its service token."""

    message = "This endpoint needs the service token."

    def has_permission(self, request: Request, _view: APIView) -> bool:
        """Return whether the caller is the service."""
        return isinstance(request.user, Principal) and request.user.kind is Kind.SERVICE


def has_any_scope(*scopes: str) -> type[BasePermission]:
    """Return a permission for callers with at least one of the scopes. The service needs none."""

    class HasAnyScope(BasePermission):
        message = f"The credential needs the scope {' or '.join(scopes)}."

        def has_permission(self, request: Request, _view: APIView) -> bool:
            principal = request.user
            return isinstance(principal, Principal) and (
                principal.kind is Kind.SERVICE or not principal.scopes.isdisjoint(scopes)
            )

    return HasAnyScope


def covered_project(principal: Principal, project_id: int) -> ProjectIdentity:
    """Return the project if the principal covers it. The service covers every project.

    Raises `Http404` both for a project that does not exist and for another organization's. Raises
    `PermissionDenied` if the project is in the caller's organization but the credential does not
    cover it. Queries the database only for the service and for refusals.
    """
    covered = principal.projects.get(project_id)
    if covered is not None:
        return covered
    try:
        project = Project.objects.filter(pk=project_id).first()
    except DatabaseFailure as error:
        raise AuthenticationUnavailable from error
    if project is not None and principal.kind is Kind.SERVICE:
        return ProjectIdentity(project.pk, project.api_token, project.organization_id)
    if project is not None and project.organization_id == principal.organization_id:
        raise PermissionDenied("The credential is scoped to another project.")
    raise Http404
