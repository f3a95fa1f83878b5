"""Compiles whole steps of families of models, by their numbers, and compares losses: for a process of its own, since
what XLA compiles stays in memory, some hundred MiB a step."""

import sys

from tests.training.test_compiled_step import FAMILIES, assert_same_of

if __name__ == "__main__":
    for number in map(int, sys.argv[1:]):
        print(FAMILIES[number], flush=True)
        assert_same_of(FAMILIES[number])
