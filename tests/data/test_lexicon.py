"""IBM Model 1 on text whose translations are known."""

import numpy as np
import pytest

from nmt_keras.data.lexicon import Lexicon, build_lexicon
from nmt_keras.errors import UserError
from nmt_keras.tokenizers.building import train_tokenizer

SOURCE, TARGET = (train_tokenizer("char", [letters], 100) for letters in ("abcdefgh", "abcdefghijklmnopqrs"))


def _pairs(count=400):
    """Source id s is translated by s + 10; the order is another, and the target begins with an id of its own."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        source = rng.choice(np.arange(4, 12), 3, replace=False).tolist()
        yield source, [22, *(i + 10 for i in reversed(source))]


def test_the_best_proposal_is_the_translation():
    lexicon = build_lexicon(_pairs(), (SOURCE, TARGET), num_proposals=3, num_common=2)
    np.testing.assert_array_equal(lexicon.proposals[4:, 0], np.arange(14, 22))
    assert not lexicon.proposals[:4].any()  # never seen
    assert lexicon.common[0] == 22 and len(lexicon.common) == 2
    assert lexicon.coverage(_pairs(10), 1) == 1.0
    assert lexicon._replace(common=lexicon.common[:0]).coverage(_pairs(10), 1) == 0.75


def test_an_id_with_few_partners_repeats_its_best():
    lexicon = build_lexicon([([4], [9])], (SOURCE, TARGET), num_proposals=3, num_common=5)
    np.testing.assert_array_equal(lexicon.proposals[4], [9, 9, 9])
    np.testing.assert_array_equal(lexicon.common, [9])


def test_without_pairs_there_is_none():
    with pytest.raises(UserError, match="no pair has text on both sides"):
        build_lexicon([], (SOURCE, TARGET), 3, 5)


@pytest.mark.parametrize(
    "count, tokenizers, message",
    [
        (4, (SOURCE, TARGET), "must be at most 3, .*Received: 4; give no more, or learn it --proposals=4$"),
        (24, (SOURCE, TARGET), "must be at most 3, .*Received: 24; give no more$"),
        (3, (SOURCE, SOURCE), "of other vocabularies than the model's; learn it"),
        (3, (train_tokenizer("char", ["abcdefgx"], 100), TARGET), "of other vocabularies than the model's; learn it"),
    ],
)
def test_what_a_search_cannot_take_is_refused(count, tokenizers, message):
    lexicon = build_lexicon(_pairs(), (SOURCE, TARGET), num_proposals=3, num_common=2)
    lexicon.require(3, (SOURCE, TARGET), "learn it")
    with pytest.raises(UserError, match=message):
        lexicon.require(count, tokenizers, "learn it")


def test_it_is_kept_as_it_is(tmp_path):
    lexicon = build_lexicon(_pairs(20), (SOURCE, TARGET), 3, 2)
    lexicon.write(tmp_path / "lexicon.npz")
    for kept, own in zip(Lexicon.read(tmp_path / "lexicon.npz"), lexicon):
        np.testing.assert_array_equal(kept, own)


@pytest.mark.parametrize(
    "content, message",
    [(None, "There is no lexicon .*"), (b"", "no readable"), (b"PK\x03\x04 no archive", "no readable")],
)
def test_a_missing_or_broken_file_says_what_makes_one(tmp_path, content, message):
    path = tmp_path / "lexicon.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message + ".*pipelines.lexicon --run_dir="):
        Lexicon.read(path)
