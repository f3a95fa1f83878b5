"""The errors a user sees."""


class UserError(ValueError):
    """A problem in what the user gave: a path, a flag, a line, a configuration field.

    The message is one line that names the thing, the value, the rule and the remedy. Jobs print it without a
    traceback and end with status 2.
    """


class Interrupted(UserError):
    """What cut a job off is not in what was asked of it: a server that went down, a file that ends too early.

    What was done so far is kept.
    """


class Failure(UserError):
    """What a job found ends it, and not how it was called: serious faults of the text, numbers that go bad again and
    again. Jobs end with status 1."""


class Stopped(BaseException):
    """A signal asked the job to stop. Like `KeyboardInterrupt`, nothing on the way up takes it for an error."""
