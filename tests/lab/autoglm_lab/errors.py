"""What can go wrong with the lab itself. A scenario that fails is no such error: it is a verdict (scenarios/report.py)."""

EXIT_OK = 0
EXIT_VERDICT = 1
EXIT_USAGE = 2
EXIT_LAB = 91
EXIT_TIMEOUT = 124
EXIT_POWER_LOST = 255
EXIT_INTERRUPTED = 130


class LabError(Exception):
    """The lab cannot do what was asked: a fact for people, and what they can do about it."""

    def __init__(self, fact: str, hint: str):
        super().__init__(fact)
        self.hint = hint
