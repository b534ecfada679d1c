"""Text that every database can store."""


def storable(text: str) -> str:
    """Return text without NUL, and with halves of surrogate pairs replaced by "?"."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
