"""The served artefact: a SavedModel from strings to strings.

The module that is saved owns the tokenizers, the tables and the raw variables. The Keras model is hidden from it: a
Keras model that is tracked is written twice, and TensorFlow Serving's loader restores the copy that nothing reads.
"""

import contextlib
import json
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from nmt_keras.config import DecodingConfig
from nmt_keras.constants import BOS_ID
from nmt_keras.data.lexicon import Lexicon
from nmt_keras.errors import UserError
from nmt_keras.inference.paragraphs import split_text
from nmt_keras.inference.protection import named
from nmt_keras.inference.search import RequestOptions, Search
from nmt_keras.inference.terms import num_terms
from nmt_keras.inference.text import (
    alignment,
    at_least_two_rows,
    detokenize,
    is_blank,
    pieces,
    source_spans,
    target_spans,
    tokenize,
)
from nmt_keras.inference.translator import translate_text
from nmt_keras.layers.masks import padding_mask
from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import Seq2Seq
from nmt_keras.serving.client import TranslateOptions
from nmt_keras.serving.compression import StoredWeight
from nmt_keras.tokenizers.base import Tokenizer
from nmt_keras.tokenizers.target_tags import TargetLanguages

_TEXT, _FLAG = tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.bool)
# The values of outputs for rows beyond the limit; outputs not listed have 0.
_PADDING = {"alignment": -1, "truncated": True, "log_prob": tf.float32.min, "score": tf.float32.min}
_REQUEST_OPTIONS = RequestOptions(
    *(tf.TensorSpec([None], dtype) for dtype in (tf.int32,) * 3 + (tf.float32,) * 2 + (tf.int32,))
)


class TranslationModule(tf.Module):
    """The module that an export saves. Every input and output begins with B, so that a server may merge calls.

    Of a model of several target languages all functions but `limits` take `target_language` too, string [B]: the code
    of the language that a row is translated into, "" for the default. A row that asks for another language has empty
    text as its source, and is `truncated`.

    Args:
        model: built.
        source_tokenizer: of the source.
        target_tokenizer: of the target.
        config: of the search.
        stored_weights: the model's weights as the export stores them, if not as they are.
        lexicon: what `decoding.shortlist` takes its ids from.
        languages: the target languages, of a model of several.
        placeholders: of a model that was trained with them, the patterns of what they stand for.
        annotates_terms: whether the model was trained with annotated terms.
        language_pair: codes of the languages that it translates from and, where nothing else is asked for, into.
    """

    def __init__(
        self,
        model: Seq2Seq | Ensemble,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        config: DecodingConfig,
        stored_weights: Sequence[StoredWeight] = (),
        lexicon: Lexicon | None = None,
        languages: TargetLanguages | None = None,
        placeholders: Sequence[str] = (),
        annotates_terms: bool = False,
        language_pair: tuple[str, str] = ("", ""),
    ):
        super().__init__(name="translation")
        self.tracked_variables = [variable.value for variable in model.variables]
        if stored_weights:
            self.tracked_variables = [e for stored in stored_weights for e in stored[1:] if isinstance(e, tf.Variable)]
        self.splits_sentences = config.split_sentences
        self._stored_weights = lambda: stored_weights
        self.tracked_tokenizers = [source_tokenizer.resource(), target_tokenizer.resource()]
        self._parts = lambda: (model, source_tokenizer, target_tokenizer, config)
        search = Search(model, target_tokenizer, config, lexicon=lexicon)
        self._search = lambda: search
        self._languages = lambda: languages
        self._annotates_terms = annotates_terms
        self._language_pair = lambda: language_pair
        self._placeholders = lambda: json.dumps(list(placeholders), ensure_ascii=False)
        self.serve = self._exported(self._serve, _TEXT)
        self.translate = self._exported(self._translate, _TEXT, *_REQUEST_OPTIONS, _TEXT, _TEXT, _FLAG)
        self.split = self._exported(self._split, _TEXT)
        self.score = self._exported(self._score, _TEXT, _TEXT)
        self.encode = self._exported(self._encode, _TEXT)
        self.limits = tf.function(self._limits, input_signature=[_TEXT], autograph=False)

    @property
    def takes_terms(self) -> bool:
        """Whether `translate` places terms: not with recombination, groups of beams or `terms_beam_size` 0."""
        return self._search().takes_terms

    @property
    def target_languages(self) -> tuple[str, ...]:
        """The codes of the target languages, the default first; none of a model of one."""
        languages = self._languages()
        return languages.codes if languages else ()

    def _exported(self, function: Callable[..., dict[str, tf.Tensor]], *inputs: tf.TensorSpec) -> Any:
        """A function of the module that is saved, which takes a target language too where there are several."""
        of_language = [_TEXT] if self._languages() else []
        return tf.function(function, input_signature=[*inputs, *of_language], autograph=False)

    def _serve(self, text: tf.Tensor, target_language: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """The best translation: string [B] to `translation`, string [B], `log_prob` and `score`, float32 [B], and
        `truncated`, bool [B]."""
        _, source_tokenizer, target_tokenizer, config = self._parts()

        def serve(tags: tf.Tensor | None, text: tf.Tensor) -> dict[str, tf.Tensor]:
            found = translate_text(self._search(), source_tokenizer, target_tokenizer, config, text, tags=tags)
            return {
                "translation": found.text[:, 0],
                "log_prob": found.hypotheses.log_prob[:, 0],
                "score": found.hypotheses.score[:, 0],
                "truncated": found.truncated,
            }

        return self._run(serve, target_language, text)

    def _translate(
        self,
        text: tf.Tensor,
        beam_size: tf.Tensor,
        num_hypotheses: tf.Tensor,
        max_length: tf.Tensor,
        length_penalty: tf.Tensor,
        temperature: tf.Tensor,
        seed: tf.Tensor,
        prefix: tf.Tensor,
        terms: tf.Tensor,
        attention: tf.Tensor,
        target_language: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Several translations of each text, a sentence, with all that is known of them.

        Args:
            text: string [B].
            beam_size: this and the next five are the fields of `RequestOptions`, [B] each.
            num_hypotheses: see there.
            max_length: see there.
            length_penalty: see there.
            temperature: see there.
            seed: see there.
            prefix: characters that the translations begin with, string [B]; "" for none. They may end inside a word.
            terms: what the translations must contain as whole words, string [B]: a term a line, ways to say it between
                tabs; "" for none. A row that is sampled places none.
            attention: whether `attention_weights` are wanted, bool [B].
            target_language: string [B].

        Returns:
            `num_hypotheses` int32 [B]; `translation` string, `log_prob` and `score` float32, `num_pieces` int32, [B, N]
            each; `pieces` string, `token_log_probs` float32, `alignment`, `piece_starts` and `piece_ends` int32, [B, N,
            L] each, </s> included, of which `alignment` is the place of the source piece read most, -1 where none is,
            for </s> and beyond, and the last two are the bytes of the translation where the piece starts and ends;
            `attention_weights` float32 [B, N, L, S], what each piece reads of the source, 0 in rows that do not ask for
            them, and [B, N, L, 0] where none does; `source_pieces` string, `source_piece_starts` and
            `source_piece_ends` int32, [B, S] each, `num_source_pieces` int32 [B], </s> included; `truncated` bool [B].
            Bytes are those of the text as valid UTF-8. `is_prefix_kept` bool [B]: whether the translations begin with
            all of `prefix`, as the tokenizer normalises it; from the first character on that the vocabulary cannot
            write they do not, nor where `max_length` leaves no room, nor that of a blank text. `num_terms` int32 [B] of
            `terms`, and `is_term_placed` bool [B, N, C], whether each is in the translation; none where `limits` says
            `takes_terms` False.
        """
        _, source_tokenizer, target_tokenizer, config = self._parts()

        def translate(tags: tf.Tensor | None, text: tf.Tensor, *given: tf.Tensor) -> dict[str, tf.Tensor]:
            source, given = at_least_two_rows(tokenize(source_tokenizer, text, config, tags), given)
            *options, prefix, terms, attention = given
            hypotheses, is_kept = self._search().with_options(source.ids, RequestOptions(*options), prefix, terms)
            of_batch = (source_tokenizer, target_tokenizer, config, source)
            translation, hypotheses = detokenize(*of_batch, hypotheses)
            source_starts, source_ends = source_spans(source_tokenizer, source, 0 if tags is None else 1)
            starts, ends = target_spans(*of_batch, hypotheses, translation)
            return {
                "num_hypotheses": tf.reduce_sum(tf.cast(hypotheses.lengths > 0, tf.int32), -1),
                "translation": translation,
                "log_prob": hypotheses.log_prob,
                "score": hypotheses.score,
                "num_pieces": hypotheses.lengths,
                "pieces": pieces(target_tokenizer, hypotheses.ids),
                "piece_starts": starts,
                "piece_ends": ends,
                "token_log_probs": hypotheses.token_log_probs,
                "alignment": alignment(hypotheses),
                "attention_weights": _of_rows(hypotheses.attention_weights, attention),
                "source_pieces": pieces(source_tokenizer, source.ids),
                "source_piece_starts": source_starts,
                "source_piece_ends": source_ends,
                "num_source_pieces": source.lengths,
                "num_terms": num_terms(terms),
                "is_term_placed": hypotheses.is_placed,
                "is_prefix_kept": is_kept & (~is_blank(source.text) | (prefix == "")),
                "truncated": source.truncated,
            }

        options = (beam_size, num_hypotheses, max_length, length_penalty, temperature, seed)
        return self._run(translate, target_language, text, *options, prefix, terms, attention)

    def _split(self, text: tf.Tensor, target_language: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """What of each text is translated by itself: string [B] to `part_text` string and `part_is_break` bool, [B, P]
        each: sentences, parts of one over the limit, and the line breaks between; `num_parts` int32 [B]; `truncated`
        bool [B]."""
        _, source_tokenizer, _, config = self._parts()

        def split(tags: tf.Tensor | None, text: tf.Tensor) -> dict[str, tf.Tensor]:
            parts, is_break, truncated = split_text(source_tokenizer, config, text, 0 if tags is None else 1)
            return {
                "part_text": parts.to_tensor(""),
                "part_is_break": is_break.to_tensor(False),
                "num_parts": tf.cast(parts.row_lengths(), tf.int32),
                "truncated": truncated,
            }

        return self._run(split, target_language, text)

    def _score(
        self, source: tf.Tensor, target: tf.Tensor, target_language: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """How probable the model finds translations that are given.

        Args:
            source: string [B].
            target: string [B].
            target_language: string [B].

        Returns:
            `log_prob` float32 [B], the sum of `token_log_probs` float32 [B, T]; `pieces` string [B, T], `num_pieces`
            int32 [B], </s> included; `truncated` bool [B], where either was over the limit.
        """
        model, source_tokenizer, target_tokenizer, config = self._parts()

        def score(tags: tf.Tensor | None, source_text: tf.Tensor, target_text: tf.Tensor) -> dict[str, tf.Tensor]:
            source, _ = at_least_two_rows(tokenize(source_tokenizer, source_text, config, tags))
            target, _ = at_least_two_rows(tokenize(target_tokenizer, target_text, config))
            token_log_probs = _token_log_probs(model, source.ids, target.ids, config.batch_sentences)
            return {
                "log_prob": tf.reduce_sum(token_log_probs, -1),
                "token_log_probs": token_log_probs,
                "pieces": pieces(target_tokenizer, target.ids),
                "num_pieces": target.lengths,
                "truncated": source.truncated | target.truncated,
            }

        return self._run(score, target_language, source, target)

    def _encode(self, text: tf.Tensor, target_language: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Sentence vectors: string [B] to `vector`, float32 [B, D], the mean of the encoder's states, and `truncated`,
        bool [B]."""
        model, source_tokenizer, _, config = self._parts()

        def encode(tags: tf.Tensor | None, text: tf.Tensor) -> dict[str, tf.Tensor]:
            source, _ = at_least_two_rows(tokenize(source_tokenizer, text, config, tags))
            return {"vector": model.sentence_vectors(source.ids), "truncated": source.truncated}

        return self._run(encode, target_language, text)

    def _limits(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """What a client needs first: any strings [B] to `max_request_sentences`, the most rows of a call that are
        answered, `batch_sentences`, the most rows that a server should merge, and `max_beam_size`, the most beams and
        samples of a row, int32 [B] each; `takes_prefix` and `takes_terms`, whether `translate` heeds these inputs, and
        `splits_sentences`, bool [B] each; `placeholders`, string [B], a JSON list of the patterns that became
        placeholders in what the model was trained on, and `protect`, one of those of `decoding.protect`, which a client
        protects by; `annotates_terms`, bool [B], whether that had annotated terms;
        `gives_attention`, bool [B], whether `translate` heeds `attention`;
        `source_language` and `target_language`, their codes, string [B] each, "" where it was not said; of a model of
        several target languages also `target_languages`, their codes with spaces between, the default first,
        string [B]."""
        _, _, _, config = self._parts()
        values: dict[str, Any] = {name: getattr(config, name) for name in ("max_request_sentences", "batch_sentences")}
        values["max_beam_size"] = config.most_beams
        values |= {"takes_prefix": True, "takes_terms": self.takes_terms and not self.splits_sentences}
        values |= {"splits_sentences": self.splits_sentences, "placeholders": self._placeholders()}
        values["protect"] = json.dumps(named(config.protect), ensure_ascii=False)
        values |= {"annotates_terms": self._annotates_terms, "gives_attention": not self.splits_sentences}
        values["source_language"], values["target_language"] = self._language_pair()
        if self.target_languages:
            values["target_languages"] = " ".join(self.target_languages)
        return {name: tf.fill(tf.shape(text), value) for name, value in values.items()}

    def _run(
        self, function: Callable[..., dict[str, tf.Tensor]], target_language: tf.Tensor | None, *inputs: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Runs a function on the first `max_request_sentences` rows, with the weights as the export stores them.

        For rows beyond, the outputs are padding, and `truncated` is True.

        Args:
            function: takes the tags of target languages, int32 [B, 1], or None, and the inputs.
            target_language: string [B], of a model of several.
            *inputs: [B] each.
        """
        _, _, _, config = self._parts()
        rows = tf.shape(inputs[0])[0]
        kept = tf.minimum(rows, config.max_request_sentences)
        weights = [(stored.weight, stored.restored()) for stored in self._stored_weights()]
        inputs, tags, is_known = tuple(value[:kept] for value in inputs), None, None
        languages = self._languages()
        if languages:
            assert target_language is not None
            tags, is_known = languages.lookup(target_language[:kept])
            inputs = tuple(tf.where(is_known, x, "") if x.dtype == tf.string else x for x in inputs)
        with keras.StatelessScope(weights) if weights else contextlib.nullcontext():
            outputs = function(tags, *inputs)
        if is_known is not None:
            outputs["truncated"] |= ~is_known

        def padded(name: str, value: tf.Tensor) -> tf.Tensor:
            missing = [[0, rows - kept]] + [[0, 0]] * (value.shape.rank - 1)
            return tf.pad(value[:kept], missing, constant_values=_PADDING.get(name, tf.zeros([], value.dtype)))

        return {name: padded(name, value) for name, value in outputs.items()}


def _of_rows(values: tf.Tensor, is_asked: tf.Tensor) -> tf.Tensor:
    """Values [B, N, L, S] of the rows that ask for them, bool [B], and 0 of others; [B, N, L, 0] where none asks, so
    that a reply is small."""
    size = tf.where(tf.reduce_any(is_asked), tf.shape(values)[-1], 0)
    return tf.where(is_asked[:, None, None, None], values[..., :size], 0.0)


def _token_log_probs(model: Seq2Seq | Ensemble, source_ids: tf.Tensor, target_ids: tf.Tensor, size: int) -> tf.Tensor:
    """Log probabilities, float32 [B, T], of target ids, int32 [B, T]; 0 at padding.

    They are computed for `size` rows at a time, since [rows, T, V] is large.
    """
    rows, size = tf.shape(source_ids)[0], max(size, 2)
    shifted = tf.pad(target_ids[:, :-1], [[0, 0], [1, 0]], constant_values=BOS_ID)

    def score_group(start: tf.Tensor, done: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        start = tf.minimum(start, rows - 2)  # a row alone would be rounded otherwise
        sources, inputs, labels = (ids[start : start + size] for ids in (source_ids, shifted, target_ids))
        hidden, _ = model(sources, inputs)
        log_probs = tf.gather(tf.nn.log_softmax(model.project(hidden)), labels, batch_dims=2)
        found = tf.where(padding_mask(labels), log_probs, 0.0)
        return start + size, tf.concat([done[:start], found], 0)

    shape = tf.TensorShape([None, None])
    _, values = tf.while_loop(
        lambda start, _: start < rows,
        score_group,
        (tf.constant(0), tf.zeros([0, tf.shape(target_ids)[1]])),
        shape_invariants=(tf.TensorShape([]), shape),
        parallel_iterations=1,
    )
    return values


def save(module: TranslationModule, base: pathlib.Path) -> pathlib.Path:
    """Saves under a temporary name in `base`, which is made; see `publish`.

    Raises:
        UserError: `base` cannot be written.
    """
    folder = None
    try:
        base.mkdir(parents=True, exist_ok=True)
        folder = pathlib.Path(tempfile.mkdtemp(dir=base, prefix=".tmp-"))
        folder.chmod(0o755)
        tf.saved_model.save(module, str(folder), signatures=signatures_of(module))
        return folder
    except BaseException as error:
        if folder is not None:
            discard(folder)
        if not isinstance(error, (OSError, tf.errors.OpError)):
            raise
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise UserError(f"Cannot write the export to {base}: {reason}; give another --output") from error


def discard(folder: pathlib.Path) -> None:
    """Removes what `save` wrote, and the folder it is in if nothing else is there."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def signatures_of(module: TranslationModule) -> dict[str, Callable]:
    """The signatures that a server runs. Where texts are split, `translate`, which takes single sentences, has the name
    `translate_part`, and `split` finds them."""
    signatures = {"serving_default": module.serve, "score": module.score, "encode": module.encode}
    signatures["limits"] = module.limits
    if module.splits_sentences:
        return {**signatures, "split": module.split, "translate_part": module.translate}
    return {**signatures, "translate": module.translate}


def next_version(base: pathlib.Path) -> int:
    """One above the highest version there is under `base`."""
    return max((int(path.name) for path in base.iterdir() if path.name.isdecimal()), default=0) + 1


def publish(folder: pathlib.Path, base: pathlib.Path) -> pathlib.Path:
    """Renames what `save` wrote to the next integer version under `base`, where TF Serving finds it."""
    return folder.rename(base / str(next_version(base)))


def sample_requests(module: TranslationModule, texts: Sequence[str]) -> list[tuple[str, dict[str, list]]]:
    """A request to each signature, `serving_default` first: its name and inputs."""
    rows = list(texts)
    translate_options = TranslateOptions(num_hypotheses=2)._asdict()
    codes = (*module.target_languages, "", "no language")  # rows in turns
    language = {"target_language": [codes[row % len(codes)] for row in range(len(rows))]}
    of_language = language if module.target_languages else {}
    options: dict[str, list] = {name: [value] * len(rows) for name, value in translate_options.items()}
    options["prefix"] = [text[: len(text) // 2] if row % 2 else "" for row, text in enumerate(rows)]
    options["terms"] = ["\t".join(text[:40].split()) if row % 3 == 0 else "" for row, text in enumerate(rows)]
    options["attention"] = [row % 2 == 0 for row in range(len(rows))]
    inputs = {
        "serving_default": {"text": rows, **of_language},
        "translate": {"text": rows, **options, **of_language},
        "translate_part": {"text": rows, **options, **of_language},
        "split": {"text": rows, **of_language},
        "score": {"source": rows, "target": rows, **of_language},
        "encode": {"text": rows, **of_language},
        "limits": {"text": rows},
    }
    return [(name, inputs[name]) for name in signatures_of(module)]


def write_warmup_requests(
    module: TranslationModule, folder: pathlib.Path, name: str, text: str, batch_sizes: Sequence[int]
) -> None:
    """Writes what TensorFlow Serving asks a model before it serves it, so that no caller waits for the first run.

    Args:
        module: what was saved.
        folder: where.
        name: of the model.
        text: a source sentence.
        batch_sizes: of the requests to `serving_default`; a small one to every other signature comes with them.
    """
    requests = [sample_requests(module, [text] * size)[0] for size in batch_sizes]
    requests += sample_requests(module, [text])
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name, request.model_spec.signature_name = name, signature
            for key, values in inputs.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
            writer.write(log.SerializeToString())
