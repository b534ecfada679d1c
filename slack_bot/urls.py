"""Paths below `/slack/`."""

from django.urls import path

from slack_bot import commands, install, interactivity, views

urlpatterns = [
    path("events/", views.receive_event, name="slack-events"),
    path("interactivity/", interactivity.receive_interaction, name="slack-interactivity"),
    path("commands/", commands.receive_command, name="slack-commands"),
    path("install/", install.install, name="slack-install"),
    path("oauth_redirect/", install.oauth_redirect, name="slack-oauth-redirect"),
]
