"""The error a user can cause."""


class UserError(ValueError):
    """A problem in what the user gave: a path, a flag, a line, a configuration field.

    The message is one line that names the thing, the value, the rule and the remedy. Jobs print it without a
    traceback and end with status 2.
    """
