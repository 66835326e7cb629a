"""The lab's own judgement: a wrong count would let every scenario hold."""

import unittest

from autoglm_lab.traffic import Command, count


def commands(*answers: str, first_level: int = 1) -> list[Command]:
    """One command for each answer; an empty one was never given."""
    return [
        Command(f"c-{number}", (first_level + number) % 97 + 1, 0.0, 1.0 if answer else None, answer)
        for number, answer in enumerate(answers)
    ]


def levels(asked: list[Command]) -> list[int]:
    return [command.level for command in asked]


class Count(unittest.TestCase):
    def test_what_was_done_once_and_said_so_is_delivered(self):
        asked = commands(*["SUCCEEDED"] * 300)
        tally = count(asked, levels(asked))
        self.assertEqual((tally.sent, tally.delivered, tally.refused, tally.lost, tally.doubled), (300, 300, 0, 0, 0))
        self.assertEqual(tally.faults, ())

    def test_what_was_said_to_be_done_and_was_not_is_lost(self):
        asked = commands(*["SUCCEEDED"] * 10)
        done = levels(asked)
        del done[4]
        self.assertEqual((count(asked, done).lost, count(asked, done).delivered), (1, 9))

    def test_what_was_never_answered_is_lost_even_if_it_was_done(self):
        asked = commands("SUCCEEDED", "")
        self.assertEqual((count(asked, levels(asked)).lost, count(asked, levels(asked)).delivered), (1, 2))

    def test_what_was_done_again_is_doubled_also_when_others_came_between(self):
        asked = commands(*["SUCCEEDED"] * 20)
        for at in (5, 12, 20):
            done = levels(asked)
            done.insert(at, asked[4].level)
            self.assertEqual(count(asked, done).doubled, 1, at)

    def test_a_refusal_is_a_promise_and_a_failure_is_none(self):
        for answer, doubled, refused in (("REJECTED", 1, 0), ("FAILED", 0, 0)):
            asked = commands("SUCCEEDED", answer, "SUCCEEDED")
            tally = count(asked, levels(asked))
            self.assertEqual((tally.doubled, tally.refused), (doubled, refused), answer)
        asked = commands("SUCCEEDED", "REJECTED", "FAILED")
        tally = count(asked, levels(asked)[:1])
        self.assertEqual((tally.refused, tally.lost, tally.faults), (2, 0, ()))

    def test_what_nobody_asked_for_is_a_fault(self):
        asked = commands("SUCCEEDED")
        self.assertEqual(len(count(asked, [*levels(asked), 60]).faults), 1)


if __name__ == "__main__":
    unittest.main()
