"""Text longer than a sentence, as graph operations: split, translated and joined in order.

Rules, not a model, find the sentences. A sentence ends at a line break; it also ends at its punctuation if what follows
may begin a sentence, unless the full stop belongs to an abbreviation. Line breaks stay where they are.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from nmt_keras.config import DecodingConfig
from nmt_keras.data.padding import source_tensor
from nmt_keras.inference.joining import NO_SPACE_AFTER
from nmt_keras.inference.text import Source, cut, is_blank
from nmt_keras.tokenizers.base import Tokenizer
from nmt_keras.tokenizers.white_space_ops import fold_tf

_MARK = "\x1e"  # ASCII's record separator, between sentences; no text holds one after `_SEPARATORS` was replaced
_BREAK_MARK = "\x1f"  # and its unit separator, before a line break
_SEPARATORS = r"[\x1c-\x1f]"
_LINE_BREAK = r"[\n\v\f\r\x{85}\x{2028}\x{2029}]"
_BREAKS = rf"[\s\p{{Z}}\x{{85}}]*{_LINE_BREAK}[\s\p{{Z}}\x{{85}}]*"

_CLOSERS = r"[\"'”“’‘»«›‹)\]\x{201E}]*"
_OPENERS = r"(?:« |[\"'“”„‚‘»«›‹(\[¿¡｟])*"  # the last begins a placeholder
_EMOJI = r"(?:[\p{So}\p{Sk}\x{FE0F}\x{200D}\x{E0020}-\x{E007F}]+ ?)*"
_BEGINNING = rf"({_OPENERS}(?:[-–—] )?{_EMOJI}{_OPENERS}(?:['’][a-z] )?[\p{{Lu}}\p{{Lt}}\p{{Lo}}\p{{N}}])"
_KANA_OR_HAN = r"[\p{Han}\p{Hiragana}\p{Katakana}]"
# Where a sentence ends, in text whose only white space is single spaces. Each is tried twice: a match ends with the
# first letter of the next sentence, which a sentence of one letter needs again.
_ENDS = (
    r"([。！？｡]+[”’」』）》〉】\"']*) ?()",
    rf"({_KANA_OR_HAN}[!?]+{_CLOSERS})({_KANA_OR_HAN})",
    rf"([؟۔।॥։።᙮។။෴]+{_CLOSERS}) ()",
    rf"(\p{{Greek}}[;\x{{37E}}]{_CLOSERS}) ({_OPENERS}\p{{Greek}})",
    rf"([.!?…]+{_CLOSERS}(?: »)?) {_BEGINNING}",
)
# Abbreviations of any of the languages, whose full stop ends no sentence; each is also matched with a capital.
_ABBREVIATIONS = (
    # English, German
    "Mr Mrs Ms Messrs Rev Hon Gen Col Capt Cpt Sgt Lt Gov Sen Rep Pres Sec St Mt Jr Sr dr prof vs cf ca approx "
    "e\\.g i\\.e Hr Fr Frl dipl ing med phil rer nat bzw evtl ggf inkl vgl sog geb z\\.b d\\.h u\\.a "
    # French, Spanish, Italian, Portuguese, Dutch
    "MM Mme Mlle Mgr av p\\.ex EE Sra Srta Srs Dra Dña Ud Uds Vd Vds Lic Excmo Gral Sig Sigg Dott Avv Geom Egr Gent "
    "Profa Exmo Exma drs dhr mevr mw bijv o\\.a "
    # Polish, Czech, Russian, Scandinavian languages, Turkish, Hindi, Arabic
    "hab inż ks ul św tzn tzw np mudr judr rndr tzv např sv Дж проф акад ул тыс гр г-н г-жа ср напр bl\\.a "
    "t\\.ex dvs Doç Yrd Sn örn डॉ प्रो د م أ"
).split()
# Abbreviations whose full stop ends no sentence if a number follows.
_BEFORE_NUMBERS = (
    "al no nos nr fig figs vol p pp pg sec ch eq tab art abb abs bd str kap jan feb mar apr aug sept sep oct okt nov "
    "dec dez kl núm num pág págs pag cap blz č čl obr rys rozdz poz стр рис гл п табл см n° nº"
).split()


def _any_of(words: list[str]) -> str:
    return "|".join(f"[{word[0].upper()}{word[0]}]{word[1:]}" for word in words)


_MONTHS = (
    "Januar Februar März April Mai Juni Juli August September Oktober November Dezember "
    "Jan Feb Apr Aug Sept Okt Nov Dez"
).split()
_NO_ENDS = (
    # A letter alone is an initial or part of an abbreviation: z. B., т. е.
    (rf"(^|[^\p{{L}}\p{{N}}])({_any_of(_ABBREVIATIONS)}|\p{{Lu}}|\p{{Ll}})\.\x1e", r"\1\2. "),
    (rf"(^|[^\p{{L}}\p{{N}}])(\p{{L}}*str|{_any_of(_BEFORE_NUMBERS)})\.\x1e(\(?\p{{N}})", r"\1\2. \3"),
    # A number is that of an item, or an ordinal, as German writes it.
    (r"(^|\x1e)(\d{1,3}|｟\d｠)\.\x1e", r"\1\2. "),
    (rf"(\d{{1,2}}|｟\d｠)\.\x1e({'|'.join(_MONTHS)})", r"\1. \2"),
    (
        r"\b([Aa]m|[Dd](?:er|ie|as|en|em|es)|[Vv]om|[Zz]um|[Zz]ur|[Bb]eim|[Ii]m|[Aa]b|[Ss]eit) (\d{1,2}|｟\d｠)\.\x1e",
        r"\1 \2. ",
    ),
    (r"([」』])\x1e(と|って)", r"\1\2"),
)
_NO_SPACE_AFTER = rf"({NO_SPACE_AFTER})\x1e+"


class _Parts(NamedTuple):
    """The parts of B texts that are translated one by one: P in all, and an empty one at the end."""

    text: tf.Tensor  # string [P + 1]
    ids: tf.RaggedTensor  # int32 [P + 1, None], without EOS
    counts: tf.Tensor  # int64 [sentences], parts of each


def split_sentences(text: tf.Tensor) -> tf.RaggedTensor:
    """Splits strings [B] into sentences and the line breaks between them, each break after a mark, string [B, None].

    Line breaks are kept as they came. A sentence has single spaces as its only white space. A blank text has no parts.
    """
    text = tf.where(is_blank(text), "", tf.strings.regex_replace(text, _SEPARATORS, " "))
    text = tf.strings.regex_replace(text, _BREAKS, rf"{_MARK}{_BREAK_MARK}\0{_MARK}")
    lines = tf.strings.split(text, _MARK)
    lines = tf.ragged.map_flat_values(lambda line: tf.where(_is_break(line), line, _marked(fold_tf(line))), lines)
    return tf.ragged.boolean_mask(*_sentences(lines))


def _sentences(lines: tf.RaggedTensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
    parts = tf.strings.split(tf.strings.reduce_join(lines, -1, separator=_MARK), _MARK)
    parts = tf.ragged.map_flat_values(lambda part: tf.where(_is_break(part), part, tf.strings.strip(part)), parts)
    return parts, tf.ragged.map_flat_values(lambda part: _is_break(part) | ~is_blank(part), parts)


def _marked(text: tf.Tensor) -> tf.Tensor:
    """Folded strings with a mark in the place of each space between two sentences."""
    for pattern in _ENDS * 2:
        text = tf.strings.regex_replace(text, pattern, rf"\1{_MARK}\2")
    text = tf.strings.regex_replace(text, f"{_MARK}+", _MARK)
    for pattern, rewrite in _NO_ENDS * 2:
        text = tf.strings.regex_replace(text, pattern, rewrite)
    return text


def _is_break(text: tf.Tensor) -> tf.Tensor:
    return tf.strings.substr(text, 0, 1) == _BREAK_MARK


def join_sentences(sentences: tf.RaggedTensor) -> tf.Tensor:
    """Sentences and line breaks [B, None] as texts [B], with a space between two sentences unless the script has none
    there."""
    text = tf.strings.reduce_join(sentences, -1, separator=_MARK)
    text = tf.strings.regex_replace(text, f"{_MARK}*{_BREAK_MARK}({_BREAKS}){_MARK}*", r"\1")
    text = tf.strings.regex_replace(text, f"^{_MARK}+|{_MARK}+$", "")
    return tf.strings.regex_replace(tf.strings.regex_replace(text, _NO_SPACE_AFTER, r"\1"), f"{_MARK}+", " ")


def translate_paragraphs(
    translate: Callable[[Source], tuple[tf.Tensor, tf.Tensor, tf.Tensor]],
    tokenizer: Tokenizer,
    config: DecodingConfig,
    text: tf.Tensor,
    tags: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Translates texts of any number of sentences, `batch_sentences` at a time; those of similar length together.

    A sentence over the model's limit is translated in as many parts as it needs.

    Args:
        translate: takes a `Source`, and returns texts, log probabilities and scores, [rows] each.
        tokenizer: of the source.
        config: of the search.
        text: string [B].
        tags: int32 [B, K], before the ids of each sentence.

    Returns:
        Translations, string [B]; the sums of their sentences' log probabilities and scores, float32 [B] each; whether
        `max_source_characters` cut the text, bool [B].
    """
    text, truncated = cut(text, config)
    units = split_sentences(text)
    is_sentence = ~_is_break(units.values)
    sentences = tf.ragged.boolean_mask(units, units.with_values(is_sentence))
    parts = _split(tokenizer, sentences, config.max_source_length - 1 - tf.shape(tags, tf.int64)[1])
    tags = tf.gather(tags, tf.repeat(sentences.value_rowids(), parts.counts))  # of each part
    tags = tf.pad(tags, [[0, 1], [0, 0]])  # and of the empty one
    order = tf.argsort(parts.ids.row_lengths(), direction="DESCENDING", stable=True)
    count, size = tf.shape(order)[0], config.batch_sentences
    groups = -(-count // size)

    def translate_group(number, *arrays):
        rows = order[number * size : (number + 1) * size]
        ids = source_tensor(tf.gather(parts.ids, rows), config.max_source_length, tf.gather(tags, rows))
        found = translate(Source(tf.gather(parts.text, rows), ids, tf.fill(tf.shape(rows), False)))
        return number + 1, *(array.write(number, value) for array, value in zip(arrays, found))

    arrays = [
        tf.TensorArray(dtype, groups, infer_shape=False, element_shape=[None])
        for dtype in (tf.string, tf.float32, tf.float32)
    ]
    _, *arrays = tf.while_loop(
        lambda number, *_: number < groups, translate_group, (tf.constant(0), *arrays), parallel_iterations=1
    )
    places = tf.argsort(order)[:-1]
    translations, log_probs, scores = (
        tf.RaggedTensor.from_row_lengths(tf.gather(array.concat(), places), parts.counts) for array in arrays
    )
    translations = join_sentences(translations)
    units = units.with_values(tf.tensor_scatter_nd_update(units.values, tf.where(is_sentence), translations))
    log_probs, scores = (tf.reduce_sum(sentences.with_values(tf.reduce_sum(x, -1)), -1) for x in (log_probs, scores))
    return join_sentences(units), log_probs, scores, truncated


def split_text(
    tokenizer: Tokenizer, config: DecodingConfig, text: tf.Tensor, num_tags: int
) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.Tensor]:
    """Splits texts into what can be translated by itself, and the line breaks between, for one who joins them.

    Args:
        tokenizer: of the source.
        config: of the search.
        text: string [B].
        num_tags: before the ids of each sentence.

    Returns:
        Sentences, parts of those over the model's limit, and line breaks as they came, string [B, None]; which of them
        are line breaks, bool [B, None]; whether `max_source_characters` cut the text, bool [B].
    """
    text, truncated = cut(text, config)
    units = split_sentences(text)
    is_break = _is_break(units.values)
    limit = max(config.max_source_length - 2 - num_tags, 1)  # a part that begins inside a word may have an id more
    sentences = tf.RaggedTensor.from_row_splits(
        tf.boolean_mask(units.values, ~is_break), [0, tf.reduce_sum(tf.cast(~is_break, tf.int64))]
    )
    parts = _split(tokenizer, sentences, tf.constant(limit, tf.int64))
    rows = tf.cast(tf.where(~is_break), tf.int64)
    counts = tf.tensor_scatter_nd_update(tf.ones_like(is_break, tf.int64), rows, parts.counts)  # of each unit
    splits = tf.pad(tf.cumsum(counts), [[1, 0]])
    is_break_part = tf.repeat(is_break, counts)
    breaks = tf.strings.regex_replace(tf.boolean_mask(units.values, is_break), f"^{_BREAK_MARK}", "")
    found = tf.fill([splits[-1]], "")
    found = tf.tensor_scatter_nd_update(found, tf.where(~is_break_part), parts.text[:-1])
    found = tf.tensor_scatter_nd_update(found, tf.where(is_break_part), breaks)
    found = tf.RaggedTensor.from_row_splits(found, tf.gather(splits, units.row_splits))
    return found, found.with_values(is_break_part), truncated


def _split(tokenizer: Tokenizer, sentences: tf.RaggedTensor, limit: tf.Tensor) -> _Parts:
    """Cuts sentences of more than `limit` ids into parts of at most so many, about equally long: where a word begins
    behind a space, if one does near, and not inside a character, unless it is normalised to more ids than `slack`."""
    ids, span_starts, span_ends = tokenizer.encode_with_offsets_tf(sentences.values)
    sizes = ids.row_lengths()
    # A cut is moved to the left by `slack` ids at most, which are kept free; a character has four bytes at most.
    slack = tf.where(limit > 9, tf.maximum(limit // 8, 3), limit // 8)
    counts = tf.where(sizes > limit, -(-sizes // (limit - slack)), tf.minimum(sizes, 1))
    numbers = tf.ragged.range(counts)
    rows = numbers.value_rowids()
    cuts = tf.gather(ids.row_starts(), rows) + numbers.values * tf.gather(sizes, rows) // tf.gather(counts, rows)
    begins_character, begins_word = _begins(sentences.values, span_starts, span_ends)
    character, word = _last_up_to(cuts, begins_character), _last_up_to(cuts, begins_word)
    moved = tf.where(cuts - word <= slack, word, tf.where(cuts - character <= slack, character, cuts))
    starts = tf.where(numbers.values > 0, moved, cuts)
    splits = tf.concat([starts, [tf.size(ids.values, tf.int64)]], 0)
    text_starts = tf.gather(span_starts.values, splits[:-1])
    text_sizes = tf.gather(span_ends.values, splits[1:] - 1) - text_starts
    text = tf.strings.substr(tf.gather(sentences.values, rows), text_starts, text_sizes)
    splits = tf.concat([splits, splits[-1:]], 0)
    return _Parts(tf.concat([text, [""]], 0), tf.RaggedTensor.from_row_splits(ids.values, splits), counts)


def _begins(texts: tf.Tensor, span_starts: tf.RaggedTensor, span_ends: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Which ids of texts [N] begin a character, and which a word behind a space; bool [ids] each."""
    ended = tf.strings.join([texts, "\0"])  # a piece may start where its text ends
    bytes_ = tf.cast(tf.io.decode_raw(tf.strings.reduce_join(ended), tf.uint8), tf.int32)
    offsets = tf.gather(tf.cumsum(tf.strings.length(ended), exclusive=True), span_starts.value_rowids())
    starts = span_starts.values
    here, before = (tf.gather(bytes_, offsets + place) for place in (starts, tf.maximum(starts - 1, 0)))
    is_whole = span_ends.values > starts  # of a character in several ids, the last one has its span
    begins_character = tf.concat([[True], is_whole], 0)[:-1] & (here & 0xC0 != 0x80)
    return begins_character, begins_character & ((here == ord(" ")) | (before == ord(" ")))


def _last_up_to(places: tf.Tensor, is_there: tf.Tensor) -> tf.Tensor:
    """The last index up to each of `places` that `is_there` is true of; -2^31 where there is none."""
    found = tf.concat([[-(2**31)], tf.where(is_there)[:, 0]], 0)
    return tf.gather(found, tf.searchsorted(found, places, side="right") - 1)
