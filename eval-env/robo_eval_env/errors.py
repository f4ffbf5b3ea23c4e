"""What can go wrong in a worker, by who has to look at it.

Every error has a message of one line, since it ends in a log or in front of an operator.
"""


class WorkerError(Exception):
    """Base of the errors that a worker answers with; it stays usable after each of them."""

    kind = "simulator"

    def __init__(self, message: str) -> None:
        """Keeps the message, folded into one line."""
        super().__init__(" ".join(message.split()))


class BadRequestError(WorkerError):
    """The request, or the simulation it names, is wrong: asking again will not help."""

    kind = "bad_request"


class ImportFailedError(WorkerError):
    """A Python module or a system library that the simulation needs is missing or broken."""

    kind = "import"


class SimulatorError(WorkerError):
    """The simulator raised, or returned something that is not a number."""

    kind = "simulator"


class StreamError(Exception):
    """The frames on standard input cannot be followed any further: the worker has to end."""


def describe(error: BaseException) -> str:
    """Returns an exception as one line: its class, then its message."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
