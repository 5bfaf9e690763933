"""Errors a user can act on: the command line prints them as one line, without a traceback."""


class UserError(ValueError):
    """Something the caller gave is wrong; the message says what, what was expected, what to do."""


class MissingData(UserError):  # noqa: N818 - it names a state, as FileNotFound would
    """A data set or a network's weights are not on this machine; the message says how to get it."""
