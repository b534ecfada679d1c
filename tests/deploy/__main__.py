"""`make test-deploy`: install the tools that the tests of this folder use, then run them."""

import shutil
import sys
from importlib.util import find_spec

import pytest

from devstack.launch import ROOT, LaunchError, install

LOCK = ROOT / "requirements-deploy.lock"
TOOLS = ("grafana_foundation_sdk", "helm_python", "kubernetes_validate")

if __name__ == "__main__":
    try:
        if not all(find_spec(tool) for tool in TOOLS):
            install(LOCK, shutil.which("uv"))
    except LaunchError as error:
        sys.exit(f"tollgate: {error}")
    sys.exit(pytest.main(["-n", "0", "-rs", "tests/deploy", *sys.argv[1:]]))
