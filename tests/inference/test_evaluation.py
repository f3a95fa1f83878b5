"""Scores are sacreBLEU's, with the right tokenizer for the target language."""

import pytest
from sacrebleu.metrics import BLEU

from nmt_keras.errors import UserError
from nmt_keras.inference import evaluation
from nmt_keras.inference.evaluation import bleu_metric, score_text


@pytest.mark.parametrize(
    "language, tokenizer", [("zh", "zh"), ("zh-CN", "zh"), ("zh_TW", "zh"), ("de", "13a"), ("EN", "13a")]
)
def test_the_tokenizer_follows_the_target_language(language, tokenizer):
    metric = bleu_metric(language)
    metric.corpus_score(["a"], [["a"]])
    assert f"tok:{tokenizer}|" in str(metric.get_signature())


def test_scores_are_those_of_sacrebleu():
    hypotheses, references = ["\u6211\u4e0d\u5403\u996d\u3002", "\u4f60\u597d\uff01"], [
        "\u6211\u4e0d\u5403\u3002",
        "\u4f60\u597d\u5417\uff1f",
    ]
    scores = score_text(hypotheses, references, "zh")
    assert scores["bleu"] == pytest.approx(BLEU(tokenize="zh").corpus_score(hypotheses, [references]).score)
    assert list(scores) == ["bleu", "bleu_signature", "chrf", "chrf_signature", "ter", "ter_signature"]
    assert "tok:zh" in scores["bleu_signature"] and "asian:yes" in scores["ter_signature"]


def test_perfect_text_scores_100():
    scores = score_text(["A man rides a horse ."], ["A man rides a horse ."], "en")
    assert scores["bleu"] == 100 and scores["chrf"] == pytest.approx(100) and scores["ter"] == 0


def test_other_counts_are_refused():
    with pytest.raises(UserError, match="There are 1 hypotheses for 2 references"):
        score_text(["a"], ["a", "b"], "en")


def test_a_missing_tokenizer_package_is_one_line_with_the_remedy(monkeypatch):
    def missing(**kwargs):
        raise ImportError("no MeCab")

    monkeypatch.setattr(evaluation, "BLEU", missing)
    with pytest.raises(UserError, match=r"pip install 'nmt_keras\[ja\]'"):
        bleu_metric("ja")


def test_ter_of_chinese_counts_characters():
    scores = score_text(
        ["\u6211\u559c\u6b22\u5403\u82f9\u679c\u3002"], ["\u6211\u559c\u6b22\u5403\u9999\u8549\u3002"], "zh"
    )
    assert scores["ter"] == pytest.approx(100 * 2 / 7)
