"""Git on the host: which addresses are allowed, mirrors, shared checkouts and changes."""
