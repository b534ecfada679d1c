"""The admin's page of each model, as the web process knows them."""

from typing import Any

from django.contrib import admin

admin.autodiscover()
ADMIN_PAGES: list[admin.ModelAdmin[Any]] = list(admin.site._registry.values())
