"""`manage.py doctor`: check every store and service, and say what to do."""

from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from console.doctor import services, stores
from console.doctor.findings import Finding, as_json, as_text, brief

Check = Callable[[], Iterator[Finding]]
CHECKS: dict[str, Check] = {
    "settings": stores.settings_findings,
    "database": stores.database_findings,
    "redis": stores.redis_findings,
    "temporal": services.temporal_findings,
    "agents": services.agent_findings,
    "slack": services.slack_findings,
    "gateway": services.gateway_findings,
}


class Command(BaseCommand):
    """Prints a line for each thing that was checked."""

    help = (
        "Check every store and service, and say what to do. Changes nothing. The exit status is 1 "
        "if there is an error. Run it where the web process runs."
    )
    requires_system_checks = []  # they are findings here

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--json", action="store_true", help="print a JSON list of findings")
        parser.add_argument(
            "--gateway",
            action="store_true",
            help="also run python -m gateway.doctor (its Redis, the providers), if the gateway's "
            "variables are set here too",
        )

    def handle(self, *_arguments: Any, **options: Any) -> None:
        """Run every check, whatever the others found."""
        checks = CHECKS
        if options["gateway"]:
            checks = {**CHECKS, "gateway.doctor": services.findings_of_the_gateway}
        findings = [one for name, check in checks.items() for one in _found(name, check)]
        self.stdout.write(as_json(findings) if options["json"] else as_text(findings))
        errors = sum(1 for one in findings if one.level == "error")
        if errors:
            raise CommandError(f"{errors} of {len(findings)} findings are errors.")


def _found(name: str, check: Check) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check())
    except Exception as error:  # the other checks still say something
        do = "This is a bug: report it with the output of this command."
        found.append(Finding(name, "error", f"the check failed ({brief(error)})", do))
    return found
