"""A Transformer in CTranslate2 translates as it does here, whatever its options."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from nmt_keras.conversion import ctranslate2 as conversion
from nmt_keras.conversion import ctranslate2_proof
from nmt_keras.conversion.ctranslate2_search import log_softmax, search
from nmt_keras.conversion.source import DevLines, translated
from nmt_keras.tokenizers.base import Tokenizers
from nmt_keras.tokenizers.characters import CharacterTokenizer
from nmt_keras.tokenizers.target_tags import tag_ids
from pipelines import convert

ct2 = pytest.importorskip("ctranslate2")

SMALL = {
    "encoder": "transformer",
    "decoder": "transformer",
    "d_model": 16,
    "num_heads": 4,
    "d_ff": 24,
    "num_encoder_layers": 2,
    "num_decoder_layers": 1,
}
# Every value of every option, and every pair of norms and positions.
OPTIONS = [
    {"positions": "sinusoidal", "pre_norm": True, "activation": "relu", "tie_output": True, "share_embeddings": True},
    {"positions": "sinusoidal", "pre_norm": False, "activation": "gelu", "tie_output": False, "d_embedding": 6},
    {"positions": "learned", "max_positions": 5, "pre_norm": True, "activation": "swiglu", "tie_output": True},
    {"positions": "learned", "max_positions": 5, "pre_norm": False, "activation": "relu", "share_embeddings": True},
    {"positions": "rotary", "pre_norm": True, "activation": "gelu", "tie_output": True, "d_embedding": 6},
    {"positions": "rotary", "pre_norm": False, "activation": "swiglu"},
    {"positions": "relative", "pre_norm": True, "activation": "relu", "tie_output": True, "share_embeddings": True},
    {"positions": "relative", "pre_norm": False, "activation": "gelu"},
    {"positions": "none", "pre_norm": True, "activation": "swiglu", "share_embeddings": True, "d_embedding": 6},
    {"positions": "none", "pre_norm": False, "activation": "relu", "tie_output": True},
]


def _name(options):
    return "-".join(str(value) for value in options.values())


IN_SHORT = (OPTIONS[0], OPTIONS[5])  # of each norm one


@pytest.mark.parametrize(
    "options",
    [*IN_SHORT, *(pytest.param(options, marks=pytest.mark.slow) for options in OPTIONS if options not in IN_SHORT)],
    ids=_name,
)
def test_the_converted_model_scores_and_translates_as_the_run(options, make_source, dev, tmp_path):
    source = make_source(**SMALL | options)
    assert conversion.reasons_against(source.config, source.tokenizers) == []
    conversion.write(source, tmp_path, "a book")
    proof = ctranslate2_proof.prove(source, tmp_path, dev)
    assert proof["compared"] == len(dev[0].texts) and proof["different"] == proof["worse_beam"] == 0
    assert proof["equal_greedy"] == proof["compared"]
    assert proof["largest_log_prob_difference"] < 5e-4 and proof["largest_score_difference"] < 1e-4
    assert proof["equal_beam"] > 0  # searches differ; `test_translations_of_a_beam_are_scored_alike` says how


def test_translations_of_the_fixture_vary_and_end(make_source, dev):
    source = make_source(**SMALL | OPTIONS[0])
    found = [hypothesis for _, hypothesis in translated(source, dev, 1)]
    assert len({hypothesis.text for hypothesis in found}) > 8
    assert sum(len(hypothesis.ids) < 24 for hypothesis in found) > 1


def test_its_search_on_our_weights_finds_what_it_does(make_source, dev, tmp_path):
    source = make_source(**SMALL | OPTIONS[0])
    conversion.write(source, tmp_path, "a book")
    found = ctranslate2_proof._Folder(tmp_path, source, dev).translations(3)
    step, piece = ctranslate2_proof._last_log_probs(source), source.tokenizers.target.piece
    for (ids, _), (_, pieces, score) in zip(translated(source, dev, 3), found, strict=True):

        def log_probs(targets, ids=ids):
            return log_softmax(step(np.tile(np.array(ids, np.int32), [len(targets), 1]), targets).numpy())

        ours = search(log_probs, 3, conversion.PATIENCE, 23)
        assert list(map(piece, ours.ids)) == pieces and ours.score == pytest.approx(score, abs=1e-5)


def test_translations_of_a_beam_are_scored_alike(make_source, dev, tmp_path):
    """Length penalty 1 is the mean of an id's log probability in both, EOS included."""
    source = make_source(**SMALL | OPTIONS[5])
    conversion.write(source, tmp_path, "a book")
    theirs = ctranslate2_proof._Folder(tmp_path, source, dev)
    found = theirs.translations(3)
    scores = theirs.scores([pieces for _, pieces, _ in found])
    whole = [(score, row) for (_, pieces, score), row in zip(found, scores) if len(pieces) < 23]
    assert len(whole) > 5
    np.testing.assert_allclose([score for score, _ in whole], [np.mean(row) for _, row in whole], atol=1e-5)


def test_the_proof_sees_another_weight(make_source, dev, tmp_path):
    source = make_source(**SMALL | OPTIONS[0])
    conversion.write(source, tmp_path, "a book")
    gamma = source.model.decoder.layers[0].around_mixer.norm.gamma
    gamma.assign(np.array(gamma) * 1.01)
    proof = ctranslate2_proof.prove(source, tmp_path, dev)
    gamma.assign(np.array(gamma) / 1.01)
    assert proof["different"] > 0 and proof["largest_log_prob_difference"] > 1e-3


def test_a_beam_that_finds_less_than_its_rules_do_is_a_fault(make_source, dev, tmp_path, monkeypatch):
    source = make_source(**SMALL | OPTIONS[0])
    conversion.write(source, tmp_path, "a book")
    translations = ctranslate2_proof._Folder.translations

    def narrower(self, beam_size):
        return translations(self, min(beam_size, 1))

    monkeypatch.setattr(ctranslate2_proof._Folder, "translations", narrower)
    proof = ctranslate2_proof.prove(source, tmp_path, [DevLines([], dev[0].texts[:8])])
    assert proof["different"] == proof["worse_beam"] > 0


def test_greedy_translations_may_part_only_where_ids_are_equal():
    is_tie = ctranslate2_proof._is_tie
    assert is_tie(["a", "b", "</s>"], [-1.0, -2.0, -0.1], ["a", "c"], [-1.0, -2.0005, -0.1])
    assert not is_tie(["a", "b", "</s>"], [-1.0, -2.0, -0.1], ["a", "c"], [-1.0, -2.002, -0.1])
    assert not is_tie(["a", "</s>"], [-1.0, -2.0], ["a", "c"], [-1.0, -2.5, -0.1])
    assert is_tie(["a"], [-1.0, -2.0], ["a"], [-1.0, -2.0])


def test_learned_positions_beyond_the_last_have_its_vector(make_source):
    source = make_source(**SMALL | OPTIONS[2])
    table = conversion.specification(source.model, 9).encoder.position_encodings.encodings
    np.testing.assert_array_equal(table[5:], np.tile(table[4], [4, 1]))
    assert len(np.unique(table, axis=0)) == 5


@pytest.mark.slow
def test_the_tag_of_the_target_language_is_the_first_piece(make_source, dev, tmp_path):
    source = make_source(**SMALL | OPTIONS[1])
    data = source.config.data
    data.target_language, data.train_languages = "fr", ("de", "fr")
    tags = tag_ids(data, source.tokenizers.source, ["de", "fr"])
    parts = [DevLines([tag], dev[0].texts) for tag in tags]
    conversion.write(source, tmp_path, "a book")
    proof = ctranslate2_proof.prove(source, tmp_path, parts)
    assert proof["compared"] == 2 * len(dev[0].texts) and proof["different"] == 0
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert '["<2fr>"] + source.encode' in readme
    assert "The first piece is the tag of the language to translate into: `<2de>`, `<2fr>`." in readme


def test_the_program_of_the_readme_translates(make_source, dev, tmp_path):
    source = make_source(**SMALL | OPTIONS[0])
    source.config.decoding.length_penalty, source.config.decoding.length_penalty_kind = 1.0, "average"
    text = dev[0].texts[0]
    conversion.write(source, tmp_path, text)
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "/ length^1: `length_penalty=1`." in readme
    program = "\n".join(line[4:] for line in readme.split("\n") if line.startswith("    ") and "pip " not in line)
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    theirs = ctranslate2_proof._Folder(tmp_path, source, [DevLines([], [text])])
    assert done.stdout.rstrip("\n") == theirs.translations(3)[0][0]


def test_the_module_that_is_copied_stands_alone():
    text = pathlib.Path(conversion.white_space.__file__).read_text(encoding="utf-8")
    assert [line for line in text.split("\n") if line.startswith(("import", "from"))] == ["import re"]


def test_what_has_no_specification_is_named(make_source, dev):
    source = make_source(**SMALL | OPTIONS[0])
    characters = CharacterTokenizer.train(dev[0].texts, 30)
    config = source.config
    config.model.encoder, config.model.decoder, config.data.tokenizer = "conv", "ssru", "char"
    reasons = conversion.reasons_against(config, Tokenizers(source.tokenizers.source, characters))
    assert reasons == [
        "model.encoder conv",
        "model.decoder ssru",
        "a target tokenizer that is not SentencePiece's (data.tokenizer char)",
    ]


def test_the_job_converts_a_run_and_says_what_it_compared(make_run, tmp_path, capsys):
    run_dir, output = make_run(SMALL | OPTIONS[0]), tmp_path / "new" / "converted"
    arguments = [f"--run_dir={run_dir}", "--to=ctranslate2", f"--output={output}", "--proof_lines=10"]
    assert convert.main(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("output") == str(output)
    assert printed == json.loads((output / "conversion.json").read_text(encoding="utf-8"))
    assert printed["compared"] == 9 and printed["different"] == 0 and printed["step"] == 7  # one of 10 lines is blank
    assert len(printed["weights_sha256"]) == 64
    assert [path.name for path in output.parent.iterdir()] == ["converted"]
    assert sorted(path.name for path in output.iterdir()) == [
        "README.md",
        "config.json",
        "conversion.json",
        "model.bin",
        "shared_vocabulary.json",
        "source.model",
        "target.model",
        "white_space.py",
    ]
    assert convert.main(arguments) == 2
    assert f"{output} is there already: give a new folder, or remove it" in capsys.readouterr().err


def test_what_differs_is_not_kept(make_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ctranslate2_proof, "_TOLERANCE", -1.0)
    run_dir, output = make_run(SMALL | OPTIONS[0]), tmp_path / "new" / "converted"
    assert convert.main([f"--run_dir={run_dir}", "--to=ctranslate2", f"--output={output}", "--proof_lines=4"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["output"] is None
    assert "the proof failed: 3 of 3 differ; nothing was kept" in captured.err
    assert not any(output.parent.iterdir())
