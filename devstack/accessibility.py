"""Check the pages for accessibility problems: `make accessibility`.

This installs what `make screenshots` installs, and has axe-core examine every page.
"""

from devstack.screenshots import become

if __name__ == "__main__":
    become("tests/console/accessibility.py", "-s", "--timeout", "900")
