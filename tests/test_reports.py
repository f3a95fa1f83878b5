"""Words for the user."""

import pytest

from nmt_keras.reports import counted


@pytest.mark.parametrize("count, text", [(0, "0 lines"), (1, "1 line"), (2, "2 lines"), (1200, "1,200 lines")])
def test_one_thing_is_no_plural(count, text):
    assert counted(count, "line") == text
