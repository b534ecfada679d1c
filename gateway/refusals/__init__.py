"""What the gateway refuses by itself, and the status and the words of its denials."""
