"""Translations of sentences joined say what of the whole text they read."""

import pytest

from nmt_keras.inference.joining import Part, joined
from nmt_keras.inference.translation import Hypothesis, Translation


def _translation(text, pieces, links, source):
    """Pieces and source pieces are spans of bytes; `</s>` of the source is added."""
    starts, ends = zip(*pieces)
    source_starts, source_ends = zip(*source, (0, 0))
    hypothesis = Hypothesis(text, -1.0, -0.5, alignment=links, outputs={"piece_starts": starts, "piece_ends": ends})
    outputs = {"source_piece_starts": list(source_starts), "source_piece_ends": list(source_ends)}
    return Translation([hypothesis], False, outputs=outputs)


def test_bytes_are_those_of_the_whole():
    text = " é  \u00adb.\n狗。 c "
    parts = [Part("é b.", False), Part("\n", True), Part("狗。", False), Part("c", False)]
    found = joined(
        text,
        parts,
        iter(
            [
                _translation("x y.", [(0, 1), (2, 4)], [1, 2], [(0, 2), (3, 5)]),
                _translation("狗。", [(0, 3), (3, 6)], [0, -1], [(0, 3), (3, 6)]),
                _translation("z", [(0, 1)], [0], [(0, 1)]),
            ]
        ),
        False,
    )
    assert found.text == "x y.\n狗。z" and not found.truncated
    assert (found.best.log_prob, found.best.score) == (-3.0, -1.5)
    spans = list(zip(found.outputs["source_piece_starts"], found.outputs["source_piece_ends"]))
    assert [text.encode()[first:last].decode() for first, last in spans] == ["é", "b.", "狗", "。", "c"]
    assert found.best.alignment == [1, -1, 2, -1, 4]  # what reads </s> reads nothing
    places = zip(found.best.outputs["piece_starts"], found.best.outputs["piece_ends"])
    assert [found.text.encode()[first:last].decode() for first, last in places] == ["x", "y.", "狗", "。", "z"]


@pytest.mark.parametrize(
    "translations, text", [(["a.", "b."], "a. b."), (["", "b."], "b."), (["a.", "", "c"], "a. c"), (["", ""], "")]
)
def test_a_space_is_between_what_is_not_empty(translations, text):
    parts = [Part("x", False)] * len(translations)
    own = (_translation(each, [(0, len(each))], [0], [(0, 1)]) for each in translations)
    assert joined("x " * len(translations), parts, own, False).text == text


def test_a_tag_of_a_language_is_read_by_no_word_and_half_characters_have_bytes():
    sentence = _translation("ein Hund", [(0, 3), (4, 8)], [1, 0], [(0, 0), (0, 1)])
    found = joined("a a", [Part("a", False), Part("a", False)], iter([sentence, sentence]), False)
    assert found.best.alignment == [1, -1, 3, -1]
    halves = [Part("a\udcf0\udc9f", False), Part("\udc98\udc80", False)]
    odd = _translation("\udcff", [(0, 1)], [0], [(0, 2)])
    assert joined("a\U0001f600", halves, iter([odd, odd]), False).best.outputs["piece_starts"] == [0, 2]
