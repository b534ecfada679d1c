"""The projects that channels of Slack workspaces serve, for many channels at once."""

from collections.abc import Collection

from projects.models import ChannelProject, Project, SlackWorkspace


def projects_of_channels(
    places: Collection[tuple[SlackWorkspace, str]],
) -> dict[tuple[SlackWorkspace, str], Project]:
    """Return the project that pays in each of these channels, as `SlackWorkspace.project_in` does.

    Takes one query.
    """
    rows = ChannelProject.objects.filter(
        workspace__in={workspace.pk for workspace, _ in places},
        channel_id__in={channel_id for _, channel_id in places},
    ).select_related("project__organization")
    named = {(row.workspace_id, row.channel_id): row.project for row in rows}
    found = {}
    for workspace, channel_id in places:
        project = named.get((workspace.pk, channel_id), workspace.project)
        same = project.organization_id == workspace.project.organization_id
        found[workspace, channel_id] = project if same else workspace.project
    return found
