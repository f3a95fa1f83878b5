"""Scores of text: BLEU, chrF and TER by sacreBLEU, with their signatures."""

from collections.abc import Sequence

from sacrebleu.metrics import BLEU, CHRF, TER

from nmt_keras.errors import UserError

_BLEU_TOKENIZERS = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}


def bleu_metric(target_language: str) -> BLEU:
    """sacreBLEU's BLEU with the tokenizer for the language (zh, ja-mecab, ko-mecab, else 13a).

    Raises:
        UserError: the tokenizer needs a package that is not installed.
    """
    language = _language(target_language)
    try:
        # What looks tokenized, such as a word model's text, is scored without a remark; it is what the user trained on.
        return BLEU(tokenize=_BLEU_TOKENIZERS.get(language, "13a"), force=True)
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"BLEU for {target_language!r} needs sacreBLEU's {language} tokenizer: "
            f"pip install 'nmt_keras[{language}]'"
        ) from error


def _language(tag: str) -> str:
    """zh of zh-CN, zh_TW, ZH."""
    return tag.partition("-")[0].partition("_")[0].lower()


def bleu_signature(target_language: str) -> str:
    """What `bleu_metric` measures against one reference, in sacreBLEU's words. Raises as it does."""
    metric = bleu_metric(target_language)
    metric.corpus_score(["a"], [["a"]])  # the number of references is part of the signature
    return str(metric.get_signature())


def score_text(hypotheses: Sequence[str], references: Sequence[str], target_language: str) -> dict[str, float | str]:
    """Corpus BLEU, chrF and TER of detokenized text, each with its signature, in the order of the run's JSON.

    Raises:
        UserError: the counts differ.
    """
    if len(hypotheses) != len(references):
        raise UserError(
            f"There are {len(hypotheses):,} hypotheses for {len(references):,} references; they must be "
            "aligned line by line"
        )
    asian = _language(target_language) in _BLEU_TOKENIZERS  # asian_support takes effect together with normalized alone
    scores: dict[str, float | str] = {}
    for name, metric in (
        ("bleu", bleu_metric(target_language)),
        ("chrf", CHRF()),
        ("ter", TER(normalized=asian, asian_support=asian)),
    ):
        scores[name] = round(metric.corpus_score(hypotheses, [references]).score, 10)
        scores[name + "_signature"] = str(metric.get_signature())
    return scores
