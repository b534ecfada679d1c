"""What failures leave behind, and finishing it."""
