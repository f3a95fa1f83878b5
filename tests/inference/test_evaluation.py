"""Scores are sacreBLEU's, with the right tokenizer for the target language."""

import pytest
from sacrebleu.metrics import BLEU

from nmt_keras.errors import UserError
from nmt_keras.inference import evaluation
from nmt_keras.inference.evaluation import bleu_metric, score_text


@pytest.mark.parametrize(
    "language, tokenizer",
    [
        ("zh", "zh"),
        ("zh-CN", "zh"),
        ("zh_TW", "zh"),
        ("de", "13a"),
        ("EN", "13a"),
        ("zho_Hans", "zh"),
        ("cmn", "zh"),
        ("yue", "zh"),
        ("th", "13a"),
    ],
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
    scores = score_text(hypotheses, [references], "zh")
    assert scores["bleu"] == pytest.approx(BLEU(tokenize="zh").corpus_score(hypotheses, [references]).score)
    names = ("bleu", "bleu_lc", "chrf", "ter")
    assert list(scores) == [key for name in names for key in (name, f"{name}_signature")]
    assert "tok:zh" in scores["bleu_signature"] and "asian:yes" in scores["ter_signature"]


def test_bleu_of_lower_cased_text_is_beside_that_of_the_text():
    hypotheses, references = ["a man rides A horse today"], [["A man rides a horse today"]]
    scores = score_text(hypotheses, references, "en")
    assert scores["bleu_lc"] == pytest.approx(100.0) and scores["bleu"] < 70
    assert "case:lc" in scores["bleu_lc_signature"] and "case:mixed" in scores["bleu_signature"]


def test_perfect_text_scores_100():
    scores = score_text(["A man rides a horse ."], [["A man rides a horse ."]], "en")
    assert scores["bleu"] == 100 and scores["chrf"] == pytest.approx(100) and scores["ter"] == 0


def test_other_counts_are_refused():
    with pytest.raises(UserError, match="There are 1 hypotheses for 2 references"):
        score_text(["a"], [["a"], ["a", "b"]], "en")


def test_a_missing_tokenizer_package_is_one_line_with_the_remedy(monkeypatch):
    class Missing(BLEU):
        def __init__(self, **kwargs):
            raise ImportError("no MeCab")

    monkeypatch.setattr(evaluation, "BLEU", Missing)
    with pytest.raises(UserError, match=r"BLEU for 'jpn_Jpan' needs .* ja-mecab: pip install 'sacrebleu\[ja\]'"):
        bleu_metric("jpn_Jpan")
    with pytest.raises(
        UserError, match=r"tokenizer flores200 is a model that it downloads once, which failed .*models, or"
    ):
        bleu_metric("th", "flores200")
    with pytest.raises(UserError, match=r"sacreBLEU has no tokenizer 'moses'; it has 'none', 'zh', '13a', "):
        bleu_metric("th", "moses")


def test_several_references_are_sacrebleus():
    hypotheses, references = ["a b c d e", "f g h i"], [["a b c d x", "f g h i"], ["a b c d e", "z"]]
    scores = score_text(hypotheses, references, "en")
    assert scores["bleu"] == pytest.approx(100) and "nrefs:2" in scores["bleu_signature"]
    assert score_text(hypotheses, references[:1], "en")["bleu"] < 90
    assert "tok:char|" in score_text(hypotheses, references, "th", "char")["bleu_signature"]


def test_ter_of_chinese_counts_characters():
    scores = score_text(
        ["\u6211\u559c\u6b22\u5403\u82f9\u679c\u3002"], [["\u6211\u559c\u6b22\u5403\u9999\u8549\u3002"]], "zh"
    )
    assert scores["ter"] == pytest.approx(100 * 2 / 7)
