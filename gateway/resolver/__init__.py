"""What the gateway asks Django: whose credential this is, and what the project may spend."""
