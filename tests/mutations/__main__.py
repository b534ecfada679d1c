"""`make mutations`: install the locked packages that it needs, then run `command.py`."""

import shutil
import sys
from importlib.util import find_spec

from devstack.launch import ROOT, LaunchError, install

LOCK = ROOT / "requirements-mutations.lock"

if __name__ == "__main__":
    try:
        if find_spec("cosmic_ray") is None:
            install(LOCK, shutil.which("uv"))
    except LaunchError as error:
        sys.exit(f"tollgate: {error}")
    from tests.mutations.command import main

    sys.exit(main(sys.argv[1:]))
