"""What can go wrong with a sandbox. None of these is the fault of the code inside."""


class SandboxError(Exception):
    """The sandbox could not do its work."""


class SandboxMissing(SandboxError):
    """No sandbox works on this machine. The message is the reason, for operators."""


class WorkspaceFailed(SandboxError):
    """A workspace could not be opened, or a command could not be started in it."""


class WorkspaceLost(SandboxError):
    """The process that holds a workspace has died, and everything in the workspace with it."""


class ExportFailed(SandboxError):
    """The change or the home could not be exported or restored."""


class TooBig(ExportFailed):
    """The patch or the archive exceeds its limit."""
