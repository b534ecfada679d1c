"""How a change of an agent reaches its repository: credentials, pushes and pull requests."""
