"""The two ways a command ends badly; the command line turns each into its exit code."""


class RequestError(ValueError):
    """What was asked for is wrong. Raised before anything is written; exit code 2."""


class WorkError(RuntimeError):
    """The request was right and the work failed. The run is closed as FAILED; exit code 1."""
