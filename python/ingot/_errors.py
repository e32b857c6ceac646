"""The exceptions of ingot, one for each status of its C interface."""

from ingot import _core


class Error(Exception):
    """Base of all. The text is one line that names the argument, the rule and the value."""


class InvalidArgument(Error, ValueError):
    """An argument breaks a rule."""


class Unsupported(Error, NotImplementedError):
    """The problem is valid, but this device or interface cannot run it; the text says why."""


class OutOfMemory(Error, MemoryError):
    """The device or the host has no memory left."""


class CompileFailed(Error, RuntimeError):
    """A kernel did not compile; the text carries the compiler's log."""


class DeviceError(Error, RuntimeError):
    """The device failed during a call."""


class Internal(Error, RuntimeError):
    """A defect of ingot."""


class Cancelled(Error, RuntimeError):
    """The call was ended early."""


# By ingot_status; 0 is no error. If an interpreter imports this a second time, the classes stay the
# first ones, so that whoever has these catches what is raised.
BY_STATUS = _core.set_exceptions(
    (
        Error,
        InvalidArgument,
        Unsupported,
        OutOfMemory,
        CompileFailed,
        DeviceError,
        Internal,
        Cancelled,
    )
)
(
    Error,
    InvalidArgument,
    Unsupported,
    OutOfMemory,
    CompileFailed,
    DeviceError,
    Internal,
    Cancelled,
) = BY_STATUS
