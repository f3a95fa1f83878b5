"""Scores of text: BLEU, chrF and TER by sacreBLEU, with their signatures."""

from collections.abc import Sequence

from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.utils import SACREBLEU_DIR

from nmt_keras.config import DataConfig
from nmt_keras.data.languages import language_of
from nmt_keras.errors import UserError
from nmt_keras.reports import Report

_EXTRAS = {"ja-mecab": "ja", "ko-mecab": "ko"}
_DOWNLOADED = ("spm", "flores101", "flores200", "spBLEU-1K")


def bleu_metric(
    target_language: str, tokenizer: str = "", *, of_sentences: bool = False, lowercase: bool = False
) -> BLEU:
    """sacreBLEU's BLEU.

    Args:
        target_language: its tag, which decides the tokenizer: zh, ja-mecab, ko-mecab, else 13a.
        tokenizer: sacreBLEU's name of another one.
        of_sentences: count the orders of n-grams alone that a sentence has (`effective_order`).
        lowercase: compare lower-cased text.

    Raises:
        UserError: there is no such tokenizer, or it needs a package or a model that is not there.
    """
    tokenizer = tokenizer or language_of(target_language).bleu_tokenizer
    if tokenizer not in BLEU.TOKENIZERS:
        raise UserError(f"sacreBLEU has no tokenizer {tokenizer!r}; it has {', '.join(map(repr, BLEU.TOKENIZERS))}")
    try:
        # What looks tokenized, such as a word model's text, is scored without a remark; it is what the user trained on.
        return BLEU(tokenize=tokenizer, effective_order=of_sentences, lowercase=lowercase, force=True)
    except (ImportError, OSError, RuntimeError, SystemExit) as error:
        if tokenizer in _DOWNLOADED:
            raise UserError(
                f"sacreBLEU's tokenizer {tokenizer} is a model that it downloads once, which failed ({error}): put it "
                f"where sacreBLEU looks for it, {SACREBLEU_DIR}/models, or give another bleu_tokenizer"
            ) from error
        package = _EXTRAS.get(tokenizer, tokenizer)
        raise UserError(
            f"BLEU for {target_language!r} needs sacreBLEU's tokenizer {tokenizer}: pip install 'sacrebleu[{package}]'"
        ) from error


def ter_metric(target_language: str) -> TER:
    """sacreBLEU's TER for a language."""
    asian = language_of(target_language).is_asian  # asian_support takes effect together with normalized alone
    return TER(normalized=asian, asian_support=asian)


def bleu_signature(target_language: str, tokenizer: str = "") -> str:
    """What `bleu_metric` measures against one reference, in sacreBLEU's words. Raises as it does."""
    metric = bleu_metric(target_language, tokenizer)
    metric.corpus_score(["a"], [["a"]])  # the number of references is part of the signature
    return str(metric.get_signature())


def score_text(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], target_language: str, tokenizer: str = ""
) -> dict[str, float | str]:
    """Corpus BLEU, also of lower-cased text (`bleu_lc`), chrF and TER of detokenized text, each with its signature, in
    the order of the run's JSON.

    Args:
        hypotheses: N translations.
        references: one or several streams of N reference translations each.
        target_language: its tag.
        tokenizer: of BLEU, instead of the language's.

    Raises:
        UserError: the counts differ, or as `bleu_metric`.
    """
    for stream in references:
        if len(hypotheses) != len(stream):
            raise UserError(
                f"There are {len(hypotheses):,} hypotheses for {len(stream):,} references; they must be "
                "aligned line by line"
            )
    scores: dict[str, float | str] = {}
    for name, metric in (
        ("bleu", bleu_metric(target_language, tokenizer)),
        ("bleu_lc", bleu_metric(target_language, tokenizer, lowercase=True)),
        ("chrf", CHRF()),
        ("ter", ter_metric(target_language)),
    ):
        scores[name] = round(metric.corpus_score(hypotheses, list(references)).score, 10)
        scores[name + "_signature"] = str(metric.get_signature())
    return scores


def open_bleu(data: DataConfig, report: Report) -> BLEU:
    """sacreBLEU's BLEU for the target language; what a user should know of it is reported.

    Raises:
        UserError: it needs a package or a model that is not there.
    """
    metric = bleu_metric(data.target_language, data.bleu_tokenizer)
    remark = language_of(data.target_language).remark()
    if remark and not data.bleu_tokenizer:
        report(remark)
    return metric
