"""The sandbox made of containers, for machines that have a Docker engine."""
