"""What all errors that a user can cause have in common."""


class ToldError(Exception):
    """An error whose message is for a person: what was wrong, where, and what to do next.

    `may_pass`: the same, tried again in a while, may succeed.
    """

    may_pass = False
