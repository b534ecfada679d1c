"""`manage.py doctor`: check what Tollgate needs, and say what to do if something is missing."""
