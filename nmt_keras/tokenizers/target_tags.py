"""Tags of target languages: one model translates into several, and the tag before a source says into which (Johnson et
al. 2017).

A tag is a control symbol of the source tokenizer: it has an id, and no text is cut into it. Text that looks like a tag
stays text.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from nmt_keras.config import DataConfig
from nmt_keras.config.data import tag_of
from nmt_keras.errors import UserError
from nmt_keras.tokenizers.base import Tokenizer


def tag_ids(data: DataConfig, tokenizer: Tokenizer, languages: Sequence[str]) -> list[int]:
    """The id of each language's tag; none for a model of one target language.

    Args:
        data: says which target languages there are.
        tokenizer: of the source.
        languages: whose tags are wanted.

    Raises:
        UserError: the tokenizer lacks a tag.
    """
    if not data.target_languages:
        return []
    found = []
    for language in languages:
        number = tokenizer.control_id(tag_of(language))
        if number is None:
            raise UserError(
                f"The source tokenizer has no control symbol {tag_of(language)!r}, which data.train_languages asks "
                "for: train a tokenizer, unigram or bpe, in this run, or give one that has them of all languages"
            )
        found.append(number)
    return found


class TargetLanguages(NamedTuple):
    """The target languages of a model of several."""

    codes: tuple[str, ...]  # the default first
    tags: tuple[int, ...]  # the ids of their tags

    def lookup(self, asked: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The tags, int32 [B, 1], of codes, string [B], and whether there is such a language, bool [B]; "" is the
        default, and so is the tag of an unknown code."""
        at = tf.equal(tf.where(tf.equal(asked, ""), self.codes[0], asked)[:, None], tf.constant(self.codes))
        return tf.gather(tf.constant(self.tags), tf.argmax(tf.cast(at, tf.int32), -1))[:, None], tf.reduce_any(at, -1)


def target_languages(data: DataConfig, tokenizer: Tokenizer) -> TargetLanguages | None:
    """The target languages of a model of several; None for one.

    Raises:
        UserError: the tokenizer lacks a tag.
    """
    codes = tuple(dict.fromkeys((data.target_language, *data.target_languages)))
    return TargetLanguages(codes, tuple(tag_ids(data, tokenizer, codes))) if data.target_languages else None
