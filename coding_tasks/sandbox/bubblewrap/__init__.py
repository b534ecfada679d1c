"""The sandbox made of bubblewrap."""
