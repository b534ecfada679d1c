"""What a request's body asks for, and whether it may be forwarded."""
