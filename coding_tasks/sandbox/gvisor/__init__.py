"""The sandbox made of gVisor: a kernel of its own, in user space, runs each command."""
