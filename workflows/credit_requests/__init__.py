"""Asking for more credits: the offer after a denial, the request, the decision, and the work."""
