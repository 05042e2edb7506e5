"""The one kind of error that a person can cause and mend."""


class ShrinkbenchError(Exception):
    """Bad input, told in one sentence: what is wrong, which value, what to do.

    The command line prints the sentence and exits with code 2; it never shows a traceback for it.
    """


class UnknownNameError(ShrinkbenchError):
    """A name that no registry entry carries."""


class CannotMeetTargetError(ShrinkbenchError):
    """A compression target that no mask of the prunable parameters can reach."""
