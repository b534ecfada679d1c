"""`manage.py doctor`: is everything that Tollgate needs there, and what to do if not."""
