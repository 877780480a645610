"""What all errors that a user can cause have in common."""


class ToldError(Exception):
    """An error whose message is for a person: what was wrong, where, and what to do next."""
