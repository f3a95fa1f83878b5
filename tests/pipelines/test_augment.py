"""The job that makes parallel text."""

import json
import shutil

import pytest

from nmt_keras.constants import TERM_MARKS
from nmt_keras.experiment import augment as augmenting
from pipelines import augment, train


@pytest.fixture
def text(tmp_path):
    (tmp_path / "mono").write_text("a b c\n\nh g f e\n  \nd\n", encoding="utf-8")
    return tmp_path


def _run(trained_copy, text, *options):
    return augment.main([f"--run_dir={trained_copy}/run", f"--input={text}/mono", f"--output_dir={text}/out", *options])


def _lines(path):
    content = path.read_text(encoding="utf-8")
    assert content.endswith("\n")
    return content.split("\n")[:-1]


def test_line_n_is_made_of_line_n_and_blank_lines_stay_in_their_place(trained_copy, text, capsys):
    assert _run(trained_copy, text, "--tag=<BT>") == 0
    card = json.loads(capsys.readouterr().out)
    assert card == json.loads((text / "out" / "card.json").read_text())
    assert _lines(text / "out" / "text.xx") == ["a b c", "", "h g f e", "", "d"]
    assert _lines(text / "out" / "text.yy") == ["<BT> a b c", "", "<BT> h g f e", "", "<BT> d"]
    assert card["lines"] == {"all": 5, "pairs": 3, "left_out": {"an empty side": 2}}
    assert card["kind"] == "back" and card["step"] == 250 and len(card["weights_sha256"][0]) == 64
    rows = [json.loads(line) for line in _lines(text / "out" / "pairs.jsonl")]
    assert [row["translation"] for row in rows] == ["a b c", "", "h g f e", "", "d"]
    assert all(-0.5 < row["score"] <= 0.0 for row in rows[::2]) and [row["score"] for row in rows[1::2]] == [None] * 2


def test_forward_translation_changes_the_side_that_is_read(trained_copy, text):
    assert _run(trained_copy, text, "--kind=forward", "--tag=<D>", "--noise") == 0
    for source, target in zip(_lines(text / "out" / "text.xx"), _lines(text / "out" / "text.yy")):
        assert (source[:4] == "<D> ") == bool(target) and "<D>" not in target
    assert _lines(text / "out" / "text.yy") == ["a b c", "", "h g f e", "", "d"]


@pytest.mark.slow
def test_filters_leave_pairs_out_on_both_sides(trained_copy, text):
    shutil.copytree(trained_copy / "run", text / "reverse")
    config = json.loads((text / "reverse" / "config.json").read_text())
    config["data"] |= {"source_language": "yy", "target_language": "xx"}
    (text / "reverse" / "config.json").write_text(json.dumps(config))
    dual = [f"--dual_run_dir={text}/reverse", "--min_dual=0.999999"]
    for options, reason in ((dual, "the dual score"), (["--min_score=-1e-9"], "the score")):
        shutil.rmtree(text / "out", ignore_errors=True)
        assert _run(trained_copy, text, *options) == 0
        card = json.loads((text / "out" / "card.json").read_text())
        assert card["lines"]["left_out"] == {reason: 3, "an empty side": 2} and card["lines"]["pairs"] == 0
        assert set(_lines(text / "out" / "text.xx")) == set(_lines(text / "out" / "text.yy")) == {""}
    shutil.rmtree(text / "out")
    assert _run(trained_copy, text, *dual[:1], "--min_dual=0.1") == 0
    rows = [json.loads(line) for line in _lines(text / "out" / "pairs.jsonl")]
    assert all(0.5 < row["dual"] < 1.0 for row in rows[::2])


def test_the_length_ratio_is_of_the_longer_side_to_the_shorter():
    maker = object.__new__(augmenting._Maker)
    maker._filters = augmenting.Filters(max_length_ratio=2.0)
    reasons = [maker._reason({"text": "ab", "translation": text}) for text in ("abcd", "abcde", "a", " a ")]
    assert reasons == ["", "the length ratio", "", ""]


def test_the_nearest_to_a_reference_is_taken(trained_copy, text):
    assert _run(trained_copy, text, "--kind=forward", "--beam_size=4", "--n_best=4", f"--reference={text}/mono") == 0
    assert _lines(text / "out" / "text.yy") == ["a b c", "", "h g f e", "", "d"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--sample", "--temperature=1.5"], ["--mbr=3"]])
def test_an_interrupted_job_goes_on(trained_copy, text, monkeypatch, options):
    monkeypatch.setattr(augmenting, "_CHUNK", 2)
    assert _run(trained_copy, text, *options) == 0
    whole = (text / "out" / "pairs.jsonl").read_bytes()
    shutil.rmtree(text / "out")
    real = augmenting._Maker._row
    calls = []

    def fail_later(self, line, *rest):
        calls.append(line)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, line, *rest)

    monkeypatch.setattr(augmenting._Maker, "_row", fail_later)
    assert _run(trained_copy, text, *options) == 130
    assert (text / "out" / "pairs.jsonl.partial").read_bytes().count(b"\n") == 2
    assert not (text / "out" / "card.json").exists()
    monkeypatch.setattr(augmenting._Maker, "_row", real)
    assert _run(trained_copy, text, *options) == 0
    assert (text / "out" / "pairs.jsonl").read_bytes() == whole
    assert _run(trained_copy, text, *options) == 2  # it is whole


@pytest.mark.slow
def test_synthetic_text_is_mixed_into_a_training(trained_copy, text, copy_text, tmp_path):
    """With its tag as one piece."""
    assert _run(trained_copy, text, "--tag=<BT>") == 0
    recipe = f"--config={__file__.rpartition('/')[0]}/copy_recipe.py"
    fields = {
        "data.train_source": f"('{copy_text}/train.src', '{text}/out/text.yy')",
        "data.train_target": f"('{copy_text}/train.tgt', '{text}/out/text.xx')",
        "data.train_weights": "(1.0, 2.0)",
        "data.tokenizer": "unigram",
        "data.source_vocab_size": 20,
        "data.byte_fallback": False,
        "data.user_symbols": "('<BT>',)",
        "data.cache_dir": tmp_path / "cache",
        "training.max_steps": 2,
        "training.evaluate_every": 2,
    }
    arguments = [f"--config.{name}={value}" for name, value in fields.items()]
    assert train.main([recipe, f"--data_dir={copy_text}", f"--run_dir={tmp_path}/run", *arguments]) == 0
    from nmt_keras.runs.tokenizers import load_tokenizers

    tokenizer = load_tokenizers(tmp_path / "run").source
    pieces = [tokenizer.piece(number) for number in tokenizer.encode("<BT> a b<BT>c")]
    assert pieces.count("<BT>") == 2


def test_a_model_of_one_language_would_lose_a_side(trained_copy, text, capsys):
    shutil.copytree(trained_copy / "run", text / "same")
    config = json.loads((text / "same" / "config.json").read_text())
    config["data"]["target_language"] = "xx"
    (text / "same" / "config.json").write_text(json.dumps(config))
    arguments = [f"--run_dir={text}/same", f"--input={text}/mono", f"--output_dir={text}/out"]
    assert augment.main(arguments) == 2
    assert "both sides of the corpus would be one file, text.xx" in capsys.readouterr().err
    assert not (text / "out").exists()


def test_what_the_model_reads_in_part_is_left_out(trained_copy, text):
    (text / "mono").write_text("a b\n" + "a b c d " * 9 + "\nc\n")
    assert _run(trained_copy, text) == 0
    card = json.loads((text / "out" / "card.json").read_text())
    assert card["lines"] == {"all": 3, "pairs": 2, "left_out": {"a text over the model's limit": 1}}
    assert _lines(text / "out" / "text.xx") == ["a b", "", "c"]


def test_pairs_that_are_there_are_not_used_with_other_options(trained_copy, text, monkeypatch, capsys):
    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(augmenting, "_write_text", fail)
        assert _run(trained_copy, text) == 130
    assert (text / "out" / "pairs.jsonl").exists() and not (text / "out" / "card.json").exists()
    capsys.readouterr()
    assert _run(trained_copy, text, "--min_score=-1") == 2
    assert "was begun otherwise: filters was" in capsys.readouterr().err
    assert _run(trained_copy, text) == 0
    assert not (text / "out" / "options.json").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--beam_size=2", "--n_best=2", "--reference={text}/long"], "ends at line 5, and the reference goes on"),
        (["--decoding.split_sentences"], "--decoding.split_sentences joins translations"),
        (["--min_dual=0.5"], "--min_dual and --dual_run_dir go together"),
        (["--n_best=3"], "--n_best and --reference go together"),
        (["--n_best=9", "--reference={text}/mono"], "9 candidates of a line need as many beams"),
        (["--n_best=2", "--reference={text}/short"], "The reference ends at line 1, and the text goes on"),
        (["--sample", "--mbr=4"], "give one of them"),
        (["--tag=two words"], "--tag must be one word. Received: 'two words'"),
        (["--tag=h"], "Line 3 has 'h', which --tag puts before text: give another tag"),
        (["--dual_run_dir={run}", "--min_dual=0.5"], "must be of the other direction than xx to yy"),
    ],
)
def test_bad_input_is_one_line(trained_copy, text, options, message, capsys):
    (text / "short").write_text("a b c\n")
    (text / "long").write_text("a\n" * 6)
    assert _run(trained_copy, text, *(each.format(text=text, run=trained_copy / "run") for each in options)) == 2
    told = capsys.readouterr().err.splitlines()
    assert message in told[-1] and not any("Traceback" in line for line in told)


def test_terms_are_written_beside_their_words_where_the_translation_has_them(tmp_path, capsys):
    for name, lines in (
        ("en", ["a dog", "the cat", "", "dog dog"]),
        ("de", ["ein Köter", "die Miez", "", "Hund Hund"]),
        ("tsv", ["dog\tHund", "dog\tKöter", "cat\tKatze"]),
    ):
        (tmp_path / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    given = {"glossary": "tsv", "input": "en", "reference": "de"}
    arguments = ["--kind=terms", "--source_language=en", "--target_language=de"]
    arguments += [f"--{name}={tmp_path}/{file}" for name, file in given.items()]
    assert augment.main([*arguments, f"--output_dir={tmp_path}/out"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["lines"] == {"all": 4, "pairs": 2, "terms": 3} and card["kind"] == "terms"
    assert card == json.loads((tmp_path / "out" / "card.json").read_text())
    begin, middle, end = TERM_MARKS
    said = f"{begin}dog{middle}Hund{end}"
    assert _lines(tmp_path / "out" / "text.en") == [f"a {begin}dog{middle}Köter{end}", "", "", f"{said} {said}"]
    assert _lines(tmp_path / "out" / "text.de") == ["ein Köter", "", "", "Hund Hund"]
    (tmp_path / "tsv").write_text("horse\tPferd\n")
    (tmp_path / "short").write_text("a\n")
    given = {argument.partition("=")[0]: argument for argument in [*arguments, f"--output_dir={tmp_path}/other"]}
    for change, message in (
        (f"--output_dir={tmp_path}/out", "holds a whole corpus"),
        (f"--output_dir={tmp_path}/other", "No pair has a term of the glossary on both sides"),
        (f"--reference={tmp_path}/short", "--reference ends before line 2"),
        ("--source_language=de", "Both languages are 'de'"),
        ("--tag=x", "--tag does not go with --kind=terms"),
        ("--glossary=", "--glossary must be given with --kind=terms"),
        ("--kind=back", "--glossary goes with --kind=terms"),
    ):
        assert augment.main(list({**given, change.partition("=")[0]: change}.values())) == 2
        assert message in capsys.readouterr().err
    assert not list((tmp_path / "other").glob("*"))
