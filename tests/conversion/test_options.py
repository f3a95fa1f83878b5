"""A program whose options are decided has no trace of them."""

import pytest

from nmt_keras.conversion.options import decided

PROGRAM = '''"""Old."""

import json
import math

KIND = "a"
FAST = False
SIZE = 3  # of something
UNUSED = 4

if KIND == "a":

    class Thing:
        """A thing."""

        if FAST:

            def run(self):
                return SIZE

        elif KIND != "a":

            def run(self):
                return json

        else:

            @property
            def run(self):
                if SIZE > 2:
                    return math.pi
                return SIZE

else:

    def thing():
        return UNUSED


if not FAST:
    print(SIZE)
'''


def test_the_branch_that_holds_comes_forward_and_the_unused_goes():
    assert decided(PROGRAM, {"KIND": "a", "FAST": False}, {"SIZE": 7, "UNUSED": "x"}, '"""New."""') == (
        '"""New."""\n\nimport math\n\nSIZE = 7  # of something\n\n\n'
        'class Thing:\n    """A thing."""\n\n    @property\n    def run(self):\n        if SIZE > 2:\n'
        "            return math.pi\n        return SIZE\n\n\nprint(SIZE)\n"
    )
    assert decided(PROGRAM, {"KIND": "b", "FAST": True}, {"UNUSED": "x"}, '"""New."""') == (
        '"""New."""\n\nUNUSED = "x"\n\n\ndef thing():\n    return UNUSED\n'
    )


def test_a_condition_that_is_more_than_an_option_is_an_error():
    with pytest.raises(ValueError, match="`KIND < 2` cannot be decided"):
        decided('"""Old."""\nKIND = 1\nif KIND < 2:\n    print()\n', {"KIND": 1}, {}, '"""New."""')
