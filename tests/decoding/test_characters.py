"""No search leaves a character half done that is written as several ids."""

import random

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.constants import EOS_ID
from nmt_keras.decoding.beam_search import beam_search
from nmt_keras.decoding.characters import automaton
from nmt_keras.decoding.constraints import Constraints
from nmt_keras.decoding.sampling import greedy, sample

V = 4 + 256


_RESTS = [b"", b"\x80", b"\x80\x80", b"\x80\x80\x80", b"\xa0\x80", b"\x90\x80\x80"]


def _is_beginning(text):
    """Whether bytes are text with some rest."""
    return any((text + rest).decode("utf-8", errors="replace").encode() == text + rest for rest in _RESTS)


def test_it_takes_the_beginnings_of_texts_and_no_others():
    surfaces = [b"", *(bytes([byte]) for byte in range(256)), "é".encode(), "狗a".encode(), b"\xa4\xe7", b"\xff"]
    table, rng = automaton(surfaces), random.Random(3)
    starts = [bytes([lead]) for lead in range(256)] + ["é狗😀".encode()[:end] for end in range(10)]
    for text in starts + [rng.randbytes(rng.randrange(1, 5)) for _ in range(2000)]:
        state = 0
        for byte in text:
            state = table[state, 1 + byte] if state >= 0 else -1
        assert (state >= 0) == _is_beginning(text), text
        if state < 0:
            continue
        for number, surface in [(0, b""), *enumerate(surfaces[257:], 257)]:
            is_half = state > 0
            assert (table[state, number] >= 0) == (_is_beginning(text + surface) if surface else not is_half)


def test_a_vocabulary_of_whole_characters_needs_none():
    assert automaton([b"", b"a", "é".encode(), " 狗".encode()]) is None


def _of_bytes(batch, length, seed, end=-2.0):
    """A step function whose logits depend on the position alone: bytes of any value, of which few make text."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(length, batch, 1, V)) * 3.0
    table[..., EOS_ID] = end
    table = tf.constant(table, tf.float32)

    def step(ids, position, state):
        shape = tf.shape(ids)
        logits = tf.broadcast_to(table[position], [shape[0], shape[1], V])
        return logits, tf.zeros([shape[0], shape[1], 1]), state

    return step, (tf.zeros([batch, 1]),)


def _surfaces():
    return [b""] * 4 + [bytes([byte]) for byte in range(256)]


@pytest.mark.parametrize("seed", range(2))
def test_what_is_found_is_text(seed):
    batch, length = 3, 24
    parts = _of_bytes(batch, length, seed)
    whole = Constraints(tf.fill([batch], length), characters=tf.constant(automaton(_surfaces())))
    seeds = tf.constant([[seed, row] for row in range(batch)])
    found = [
        beam_search(*parts, whole, beam_size=4, num_hypotheses=3),
        beam_search(*parts, whole, beam_size=4, num_hypotheses=3, groups=2),
        greedy(*parts, whole),
        sample(*parts, whole, seeds=seeds, num_samples=4),
        sample(*parts, whole, seeds=seeds, num_samples=2, top_k=3),
    ]
    is_longer = False
    for hypotheses in found:
        for ids in hypotheses.ids.numpy().reshape(-1, hypotheses.ids.shape[2]):
            text = b"".join(_surfaces()[number] for number in ids)
            assert _is_beginning(text)
            if np.argmax(ids == EOS_ID) < length - 1:  # which ends it anywhere
                text.decode("utf-8")
            is_longer |= any(byte > 127 for byte in text)
    assert is_longer
    plain = greedy(*parts, whole._replace(characters=None)).ids.numpy()
    assert not all(_is_beginning(b"".join(_surfaces()[number] for number in row[0])) for row in plain)


def test_what_nothing_can_end_is_not_given_up():
    surfaces = [b""] * 4 + [b"\xe7", b"a"]  # of a shortlist without the rest of the character
    table = tf.constant([[[[0.0, 0.0, 0.0, 0.0, 9.0, 0.0]]], [[[0.0, 0.0, 0.0, 3.0, 2.0, 1.0]]]])

    def step(ids, position, state):
        return table[tf.minimum(position, 1)], tf.zeros([1, 1, 1]), state

    constraints = Constraints(tf.constant([5]), characters=tf.constant(automaton(surfaces)))
    assert greedy(step, (tf.zeros([1, 1]),), constraints).ids.numpy().tolist() == [[[4, EOS_ID]]]
