"""The one exception that a user can cause."""


class UserError(Exception):
    """Something the user can put right. The message is one sentence that says what to do.

    Every other exception that leaves a `run` is a bug of ours.
    """
