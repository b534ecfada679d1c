"""The keeper: a process that holds one workspace's mounts and starts commands in it.

It is forked from a process that has an interpreter of its own, with the standard library only. It
starts as the worker's user and runs no hostile code itself.
"""
