"""What runs when: the short form holds what continuous integration must see, and what is on demand waits to be named."""

import argparse
import unittest

from autoglm_lab.scenarios import ALL, runner

# By what is done to the box; a scenario of each kind must be in the short form.
SHORT = ("replug", "device-reboots", "broker-restarts", "kill-9-of-the-daemon", "ble-device-leaves", "power-is-cut")


def chosen(*arguments: str) -> list[str]:
    parser = argparse.ArgumentParser()
    runner.add_arguments(parser)
    options = parser.parse_args(arguments)
    return [one.name for one in ALL if runner.is_chosen(one, options)]


class Choice(unittest.TestCase):
    def test_the_short_form_has_a_fault_of_each_kind(self):
        names = chosen("--short")
        for part in SHORT:
            self.assertTrue(any(part in name for name in names), f"{part} is not in {names}")

    def test_without_words_everything_runs_but_what_is_on_demand(self):
        names = chosen()
        self.assertGreaterEqual(len(names), 20)
        self.assertEqual({one.name for one in ALL if one.is_on_demand}, {one.name for one in ALL} - set(names))

    def test_what_is_on_demand_runs_when_it_is_named(self):
        self.assertEqual(chosen("flush-alone"), ["flush-alone-is-not-durable"])

    def test_every_scenario_makes_a_claim_and_has_a_name_of_its_own(self):
        self.assertEqual(len({one.name for one in ALL}), len(ALL))
        for one in ALL:
            self.assertGreater(len(one.claim), 20, one.name)
            self.assertGreater(one.bound_s, 0, one.name)


if __name__ == "__main__":
    unittest.main()
