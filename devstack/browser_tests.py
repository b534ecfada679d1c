"""Run the tests in this machine's Chromium: `make test-browser`.

This installs what `make screenshots` installs, and keeps no pictures.
"""

from devstack.screenshots import become

if __name__ == "__main__":
    become("tests/console/test_in_browser.py", "tests/devstack/test_story_in_browser.py")
