"""Strings in, strings out: one graph function, used by the translator, by evaluation and by the export."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nmt_keras.config import DecodingConfig
from nmt_keras.data.batching import source_tensor
from nmt_keras.data.tokenizer import Tokenizer
from nmt_keras.decoding.beam_search import beam_search, penalty
from nmt_keras.decoding.hypotheses import Hypotheses
from nmt_keras.decoding.sampling import greedy, sample
from nmt_keras.layers.masks import padding_mask
from nmt_keras.models.seq2seq import Seq2Seq

_BLANK = r"[\s\p{Z}\x{FEFF}]*"
_CONTROLS = r"[\x00-\x08\x0A-\x1F\x7F]+"  # all but the tab: a line stays a line
_MIN_ROWS = 2  # products of one row round differently from those of several


class Sampling(NamedTuple):
    """How to sample instead of searching: see `nmt_keras.decoding.sampling.sample`."""

    seed: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


class Translations(NamedTuple):
    """Of a batch of B texts; N hypotheses each, L ids at most, S source ids at most."""

    text: tf.Tensor  # string [B, N]; empty for an empty or blank source
    hypotheses: Hypotheses  # all zeros for an empty or blank source
    source_ids: tf.Tensor  # int32 [B, S]
    truncated: tf.Tensor  # bool [B], whether the source was longer than the limit


class Translation(NamedTuple):
    """Of one text: its best translation."""

    text: str
    log_prob: float
    score: float
    source_ids: list[int]  # with EOS
    target_ids: list[int]  # with EOS
    attention_weights: np.ndarray  # float32 [target ids, source ids]
    truncated: bool


def translate_text(
    model: Seq2Seq,
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    config: DecodingConfig,
    text: tf.Tensor,
    sampling: Sampling | None = None,
    numbers: tf.Tensor | None = None,
) -> Translations:
    """The whole of inference as graph operations: tokenize, encode, search, detokenize.

    Args:
        model: built.
        source_tokenizer: of the source.
        target_tokenizer: of the target.
        config: of the search; `beam_size` 1 is greedy.
        text: string [B].
        sampling: sample one translation instead of searching.
        numbers: int32 [B], what tells the rows' samples apart, such as their line numbers.

    Returns:
        One hypothesis a row.
    """
    rows = tf.shape(text)[0]
    text = tf.concat([text, tf.fill([tf.maximum(_MIN_ROWS - rows, 0)], "")], 0)
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    ids = source_tokenizer.encode_tf(text)
    truncated = ids.row_lengths() >= config.max_source_length
    source_ids = source_tensor(ids, config.max_source_length)
    memory = model.prepare(source_ids)
    lengths = tf.reduce_sum(tf.cast(padding_mask(source_ids), tf.int32), 1)
    max_length = tf.cast(tf.cast(lengths, tf.float32) * config.max_length_ratio, tf.int32) + 10
    max_length = tf.minimum(max_length, config.max_length)

    def step_fn(ids, position, state):
        return model.step(ids, position, state, memory)

    state = model.init_state(memory, tf.reduce_max(max_length))
    if sampling is not None:
        numbers = tf.concat([numbers, tf.zeros([tf.shape(text)[0] - rows], tf.int32)], 0)
        hypotheses = sample(
            step_fn,
            state,
            max_length,
            seeds=tf.stack([tf.fill(tf.shape(numbers), sampling.seed), numbers], 1),
            top_p=sampling.top_p,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
        )
    elif config.beam_size == 1:
        hypotheses = greedy(step_fn, state, max_length)
        score = hypotheses.log_prob / penalty(hypotheses.lengths, config.length_penalty)
        hypotheses = hypotheses._replace(score=score)
    else:
        hypotheses = beam_search(
            step_fn, state, max_length, beam_size=config.beam_size, length_penalty=config.length_penalty
        )
    flat = tf.reshape(hypotheses.ids, [-1, tf.shape(hypotheses.ids)[2]])
    flat_lengths = tf.reshape(hypotheses.lengths, [-1])
    output = target_tokenizer.decode_tf(tf.RaggedTensor.from_tensor(flat, lengths=flat_lengths))
    output = tf.strings.regex_replace(output, _CONTROLS, " ")
    output = tf.reshape(output, tf.shape(hypotheses.lengths))
    blank = tf.strings.regex_full_match(text, _BLANK)

    def unless_blank(leaf):
        return tf.where(tf.reshape(blank, [-1] + [1] * (leaf.shape.rank - 1)), tf.zeros_like(leaf), leaf)

    output, hypotheses = tf.nest.map_structure(unless_blank, (output, hypotheses))
    return tf.nest.map_structure(lambda leaf: leaf[:rows], Translations(output, hypotheses, source_ids, truncated))


class Translator:
    """Translates strings: one out per one in, in order; an empty one stays empty.

    Example:
        translator = Translator(model, tokenizer, tokenizer, DecodingConfig(beam_size=5))
        [translation] = translator.translate(["A man rides a horse."])

    Args:
        model: built.
        source_tokenizer: of the source.
        target_tokenizer: of the target.
        config: of the search.
        sampling: sample instead of searching.
    """

    def __init__(
        self,
        model: Seq2Seq,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        config: DecodingConfig,
        sampling: Sampling | None = None,
    ):
        self.source_tokenizer = source_tokenizer
        self.target_tokenizer = target_tokenizer
        self.config = config
        self._function = tf.function(
            lambda text, numbers: translate_text(
                model, source_tokenizer, target_tokenizer, config, text, sampling, numbers
            ),
            input_signature=(tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.int32)),
            autograph=False,
        )

    def translate(
        self, texts: Sequence[str], report: Callable[[int], object] = lambda count: None, first_number: int = 0
    ) -> list[Translation]:
        """The translations of `texts`, in their order.

        Batches are formed of texts of similar length, and their composition does not change a result.

        Args:
            texts: strings of any length; what is over `max_source_length` ids is not translated.
            report: is told after each batch how many texts it held.
            first_number: of the texts, which number those of a stream; a sample depends on its text's number.
        """
        lengths = [len(self.source_tokenizer.encode(text)) for text in texts]
        order = sorted(range(len(texts)), key=lambda i: -lengths[i])
        results: dict[int, Translation] = {}
        for start in range(0, len(order), self.config.batch_sentences):
            rows = order[start : start + self.config.batch_sentences]
            numbers = [first_number + i for i in rows]
            results.update(zip(rows, self.translate_batch([texts[i] for i in rows], numbers)))
            report(len(rows))
        return [results[i] for i in range(len(texts))]

    def translate_batch(self, texts: Sequence[str], numbers: Sequence[int] | None = None) -> list[Translation]:
        """The translations of `texts` as one batch, however many and however long they are.

        `numbers` are those that samples depend on; 0, 1, 2, ... if None.
        """
        encoded = [text.encode("utf-8", errors="replace") for text in texts]
        numbers = range(len(texts)) if numbers is None else numbers
        return list(_unpack(self._function(tf.constant(encoded), tf.constant(list(numbers), tf.int32))))

    def translate_stream(self, lines: Iterable[str], chunk: int = 2048) -> Iterator[Translation]:
        """Translates lines as they come, `chunk` at a time, in constant memory."""
        lines = iter(lines)
        for start in itertools.count(0, chunk):
            buffer = list(itertools.islice(lines, chunk))
            yield from self.translate(buffer, first_number=start)
            if len(buffer) < chunk:
                return


def _unpack(batch: Translations) -> Iterator[Translation]:
    text, hypotheses, source_ids, truncated = (
        batch.text.numpy(),
        Hypotheses(*(leaf.numpy() for leaf in batch.hypotheses)),
        batch.source_ids.numpy(),
        batch.truncated.numpy(),
    )
    source_lengths = padding_mask(batch.source_ids).numpy().sum(1)
    for row in range(len(text)):
        length, source_length = hypotheses.lengths[row, 0], source_lengths[row]
        yield Translation(
            text[row, 0].decode("utf-8", errors="replace"),
            float(hypotheses.log_prob[row, 0]),
            float(hypotheses.score[row, 0]),
            source_ids[row, :source_length].tolist(),
            hypotheses.ids[row, 0, :length].tolist(),
            hypotheses.attention_weights[row, 0, :length, :source_length],
            bool(truncated[row]),
        )
