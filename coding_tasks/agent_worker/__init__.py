"""The process that runs agents. Imports no Django, so its machine needs no secrets of ours."""
