"""What clients do when the gateway says that the credits are used up."""
