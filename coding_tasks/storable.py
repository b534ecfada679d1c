"""Text as every database takes it."""


def storable(text: str) -> str:
    """Return text without what no database stores: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
