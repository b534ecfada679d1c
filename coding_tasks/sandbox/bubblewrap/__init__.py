"""The sandbox made of bubblewrap. A keeper process holds the mounts of each workspace."""
