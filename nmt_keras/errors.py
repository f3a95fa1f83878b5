"""The errors a user sees."""


class UserError(ValueError):
    """A problem in what the user gave: a path, a flag, a line, a configuration field.

    The message is one line that names the thing, the value, the rule and the remedy. Jobs print it without a
    traceback and end with status 2.
    """


class Interrupted(UserError):
    """A job was cut off by something outside the request: a server that went down, a file that ends too early.

    The output so far is kept.
    """


class Failure(UserError):
    """A job ends because of what it found, not how it was called: serious faults of the text, or steps that are not
    finite again and again. Jobs end with status 1."""


class WorkerLost(UserError):
    """Another worker of a cluster stopped or cannot be reached. What was saved goes on when all are there again; jobs
    end with status 75."""


class Stopped(BaseException):
    """A signal asked the job to stop. Like `KeyboardInterrupt`, no `except Exception` catches it."""
