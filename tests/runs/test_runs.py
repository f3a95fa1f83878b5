"""A run directory: whose it is, its data card, its tokenizers, and loading it."""

import gzip
import io
import json
import re
import shutil

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf

from nmt_keras.config import DataConfig, DecodingConfig, ExperimentConfig, ModelConfig
from nmt_keras.config.fields import ALLOWED, FREE, REFUSED, fields_of
from nmt_keras.data.corpus import ParallelCorpus, TextFile
from nmt_keras.data.lengths import sampled_length_factor
from nmt_keras.errors import UserError
from nmt_keras.experiment.text import open_corpus
from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.runs.data_card import check_data_card, write_data_card
from nmt_keras.runs.layout import checkpoints_of, open_run_dir, read_config, require_same_experiment
from nmt_keras.runs.loading import load
from nmt_keras.runs.tokenizers import load_tokenizers, prepare_tokenizers
from nmt_keras.training.checkpoints import Checkpoints, by_path
from nmt_keras.training.pretrained_vectors import load_pretrained_vectors

ENGLISH = ["the old man walks", "the young woman reads", "a child walks home", "the man reads a book"] * 5
CHINESE = ["老人走路", "年轻女人读书", "孩子走路回家", "男人读书"] * 5


def _open(run_dir, config):
    with open_run_dir(run_dir, config):
        pass


def test_one_job_at_a_time_trains_in_a_run_directory(tmp_path):
    with open_run_dir(tmp_path / "run", _config()):
        with pytest.raises(UserError, match="Another job is training in .*run; wait for it, or give another --run_dir"):
            _open(tmp_path / "run", _config())
    _open(tmp_path / "run", _config())


def _config(**data):
    fields = {
        "train_source": ("a.en",),
        "train_target": ("a.zh",),
        "dev_source": ("b.en",),
        "dev_target": ("b.zh",),
        "tokenizer": "char",
        "source_vocab_size": 30,
        "target_vocab_size": 20,
    }
    return ExperimentConfig(data=DataConfig(**{**fields, **data}), model=ModelConfig(d_model=8, num_encoder_layers=2))


def _corpus(folder, source=ENGLISH, target=CHINESE, name="a"):
    for lines, language in ((source, "en"), (target, "zh")):
        content = "".join(line + "\n" for line in lines)
        (folder / f"{name}.{language}").write_text(content, encoding="utf-8", newline="\n")
    return ParallelCorpus(
        *([TextFile(str(folder / f"{name}.{language}"), str(folder / "cache"))] for language in ("en", "zh"))
    )


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "runs" / "first"


@pytest.fixture
def reports():
    return []


def test_a_new_run_directory_holds_its_configuration(run_dir):
    _open(run_dir, _config())
    assert sorted(path.name for path in run_dir.iterdir()) == [".lock", "config.json"]
    assert read_config(run_dir) == _config()


def test_the_same_configuration_opens_a_run_again(run_dir):
    _open(run_dir, _config())
    _open(run_dir, _config())
    assert read_config(run_dir) == _config()


def test_another_configuration_is_refused_with_the_difference_and_nothing_is_written(run_dir):
    _open(run_dir, _config())
    (run_dir / "checkpoints" / "step-00000001").mkdir(parents=True)
    other = _config(tokenizer="byte")
    other.model.d_model = 16
    other.training.seed = 2
    other.training.max_steps = 77  # free
    with pytest.raises(
        UserError,
        match=r"^\S+first belongs to another configuration: data\.tokenizer was 'char', "
        r"now 'byte'; "
        r"model\.d_model was 8, now 16; training\.seed was 1, now 2; give the same "
        r"values, "
        r"or another --run_dir$",
    ):
        _open(run_dir, other)
    assert read_config(run_dir) == _config()


TRIED = {
    "training.max_steps": 7,
    "training.log_every": 7,
    "training.evaluate_every": 7,
    "training.histograms_every": 7,
    "training.checkpoint_every": 7,
    "training.keep_checkpoints": 7,
    "training.patience": 7,
    "training.max_bad_steps": 7,
    "training.worker_timeout": 7.0,
    "training.watch_port": 7,
    "training.max_in_flight": 7,
    "data.data_dir": "/else",
    "data.cache_dir": "/else",
    "data.on_findings": "report",
    "decoding.beam_size": 7,
    "decoding.length_penalty": 0.7,
}


def _trained(run_dir):
    """A run directory in which something was trained."""
    _open(run_dir, _config())
    (run_dir / "checkpoints" / "step-00000001").mkdir(parents=True)


def test_every_free_field_has_a_value_to_try():
    free = {field.path for field in fields_of(ExperimentConfig) if field.spec.resume == FREE}
    assert {name for name in free if not name.startswith("decoding.")} < set(TRIED) < free


@pytest.mark.parametrize("field", TRIED)
def test_what_does_not_change_the_model_may_differ_after_training_and_is_written(run_dir, field):
    _trained(run_dir)
    other, (section, name) = _config(), field.split(".")
    assert getattr(getattr(other, section), name) != TRIED[field]
    setattr(getattr(other, section), name, TRIED[field])
    require_same_experiment(run_dir, other, False)
    said = []
    with open_run_dir(run_dir, other, said.append):
        pass
    assert getattr(getattr(read_config(run_dir), section), name) == TRIED[field]
    assert len(said) == 1 and f"{field} was" in said[0]


@pytest.mark.parametrize(
    "field, value", [("training.dev_sentences", 7), ("training.dev_beam_size", 7), ("model.d_model", 4)]
)
def test_what_changes_what_is_chosen_or_learned_is_refused_after_training(run_dir, field, value):
    _trained(run_dir)
    other, (section, name) = _config(), field.split(".")
    setattr(getattr(other, section), name, value)
    for refuse in (lambda: _open(run_dir, other), lambda: require_same_experiment(run_dir, other, False)):
        with pytest.raises(UserError, match=f"{field} was .*, now {value}"):
            refuse()
    assert read_config(run_dir) == _config()


@pytest.mark.parametrize(
    "section, name", [(field.section, field.name) for field in fields_of(ExperimentConfig) if field.spec.resume != FREE]
)
def test_every_other_field_is_part_of_the_experiment(run_dir, section, name):
    _open(run_dir, _config())
    (run_dir / "checkpoints" / "step-00000001").mkdir(parents=True)
    other = _config()
    setattr(getattr(other, section), name, "something else")
    with pytest.raises(UserError, match=rf"{section}\.{name} was .*, now 'something else'"):
        _open(run_dir, other)


@pytest.mark.parametrize(
    "field", [f for f in fields_of(ExperimentConfig) if f.spec.resume != FREE], ids=lambda f: f.path
)
def test_some_fields_change_where_that_is_allowed(run_dir, field):
    _open(run_dir, _config())
    (run_dir / "checkpoints" / "step-00000001").mkdir(parents=True)
    other, name = _config(), field.path
    setattr(getattr(other, field.section), field.name, "something else")
    said = []
    with pytest.raises(UserError, match=f"{name} was .*, now 'something else'; give ") as caught:
        _open(run_dir, other)
    assert ("--allow_config_change" in str(caught.value)) == (field.spec.resume == ALLOWED)
    if field.spec.resume == REFUSED:
        with pytest.raises(UserError), open_run_dir(run_dir, other, allow_change=True):
            pass
    else:
        with open_run_dir(run_dir, other, said.append, allow_change=True):
            assert f"{name} was" in said[0] and said[0].startswith("from now on: ")


def test_a_budget_that_was_found_stays(run_dir):
    config = _config()
    config.training.batch_tokens = 640
    _open(run_dir, config)
    (run_dir / "checkpoints" / "step-00000001").mkdir(parents=True)
    config.training.batch_tokens = 0
    _open(run_dir, config)
    assert config.training.batch_tokens == 640


def test_a_false_start_does_not_bind_the_run_directory(run_dir):
    """Nothing was trained: the next command may mend the configuration."""
    _open(run_dir, _config())
    other = _config()
    other.model.d_model = 16
    _open(run_dir, other)
    assert read_config(run_dir) == other


def test_lists_in_a_recipe_are_the_same_as_tuples(run_dir):
    """JSON knows lists only, and recipes are written by people."""
    config = _config(train_source=["a.en"], train_target=["a.zh"])
    _open(run_dir, config)
    _open(run_dir, config)


def test_a_folder_that_is_no_run_directory_is_refused(run_dir, tmp_path):
    run_dir.mkdir(parents=True)
    (run_dir / "thesis.tex").write_text("years of work")
    for path in (run_dir, run_dir / "thesis.tex"):
        with pytest.raises(UserError, match=rf"^{path} exists and is no run directory; give a new or empty --run_dir$"):
            _open(path, _config())
    assert [path.name for path in run_dir.iterdir()] == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    _open(tmp_path / "empty", _config())


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", r"^The configuration is not JSON \(.*\); restore the config\.json of the run$"),
        ('{"model": {"d_modle": 8}}', r"^Unknown field model\.d_modle; valid ones: activation, .*d_model"),
        ('{"modle": {}}', "^Unknown section 'modle'; valid ones: data, decoding, model, training$"),
    ],
)
def test_a_broken_configuration_is_named(run_dir, content, message):
    run_dir.mkdir(parents=True)
    (run_dir / "config.json").write_text(content)
    for use in (read_config, load, lambda path: _open(path, _config())):
        with pytest.raises(UserError, match=message):
            use(run_dir)


def test_text_is_opened_below_the_data_directory_and_its_oddities_are_reported(tmp_path, reports):
    (tmp_path / "a.en").write_bytes(b"one\r\ntwo\n")
    (tmp_path / "a.zh").write_bytes(b"1\n\xff\n")
    data = DataConfig(data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    corpus = open_corpus(data, ["a.en"], [str(tmp_path / "a.zh")], reports.append)
    assert corpus.text() == (["one", "two"], ["1", "\ufffd"])
    assert reports == [
        f"{tmp_path}/a.en: CR LF line ends in 1 line (1): the CR is removed",
        f"{tmp_path}/a.zh: invalid UTF-8 in 1 line (2): read as U+FFFD",
    ]
    with pytest.raises(UserError, match=r"^Cannot read \S+none\.en: No such file or directory; check the path"):
        open_corpus(data, ["none.en"], ["a.zh"], reports.append)


def test_the_data_card_names_files_lines_hashes_and_oddities(run_dir, tmp_path):
    train, dev = _corpus(tmp_path), _corpus(tmp_path, ["x\0"], ["y"], "b")
    write_data_card(run_dir, train, dev)
    card = json.loads((run_dir / "data_card.json").read_text(encoding="utf-8"))
    assert card.pop("findings") == []
    assert {name: [(file["path"], file["lines"]) for file in files] for name, files in card.items()} == {
        "train": [(str(tmp_path / "a.en"), 20), (str(tmp_path / "a.zh"), 20)],
        "dev": [(str(tmp_path / "b.en"), 1), (str(tmp_path / "b.zh"), 1)],
    }
    assert card["dev"][0]["findings"] == ["NUL characters in 1 line (1): removed"]
    assert card["train"][0]["sha256"] == train.sources[0].sha256


def test_a_data_card_of_other_text_is_refused(run_dir, tmp_path):
    train, dev = _corpus(tmp_path), _corpus(tmp_path, ["x"], ["y"], "b")
    check_data_card(run_dir, train, dev)  # there is none
    write_data_card(run_dir, train, dev)
    check_data_card(run_dir, train, dev)
    other = _corpus(tmp_path, ["x"], ["z"], "b")
    with pytest.raises(
        UserError,
        match=r"^\S+first was trained on other dev text: \S+b\.zh has changed; restore the file, give "
        r"--allow_config_change to go on with it, or another --run_dir$",
    ):
        check_data_card(run_dir, train, other)
    more = ParallelCorpus(train.sources * 2, train.targets * 2)
    with pytest.raises(UserError, match=r"was trained on other train text: \S+ has changed"):
        check_data_card(run_dir, more, dev)


def test_what_is_refused_leaves_the_configuration(run_dir):
    _open(run_dir, _config())
    (run_dir / "checkpoints" / "step-00000001").mkdir(parents=True)
    other = _config()
    other.training.max_steps = 7

    def refuse():
        raise UserError("other data")

    with pytest.raises(UserError, match="other data"), open_run_dir(run_dir, other, check=refuse):
        pass
    assert read_config(run_dir) == _config()


def test_moved_text_of_the_same_content_is_no_change(run_dir, tmp_path):
    train = _corpus(tmp_path)
    write_data_card(run_dir, train, train)
    moved = _corpus(tmp_path, name="moved")
    check_data_card(run_dir, moved, moved)


def test_a_joint_tokenizer_is_trained_on_both_sides_and_loaded_again(run_dir, tmp_path, reports):
    corpus, data = _corpus(tmp_path), _config(source_vocab_size=60).data
    first = prepare_tokenizers(run_dir, data, corpus, reports.append)
    assert first.source is first.target
    assert first.source.decode(first.source.encode("the 老人")) == "the 老人"
    assert reports == [f"tokenizer: joint char with {first.source.vocab_size} ids"]
    assert [path.name for path in run_dir.iterdir()] == ["tokenizer"]
    again = prepare_tokenizers(run_dir, data, _corpus(tmp_path, ["z"], ["z"], "other"), reports.append)
    assert again.source is again.target and again.source.sha256 == first.source.sha256
    assert len(reports) == 1


def test_separate_tokenizers_have_their_own_sides_and_sizes(run_dir, tmp_path, reports):
    corpus, data = _corpus(tmp_path), _config(joint_vocabulary=False, target_vocab_size=15).data
    first = prepare_tokenizers(run_dir, data, corpus, reports.append)
    assert (first.source.vocab_size, first.target.vocab_size) == (len(set("".join(ENGLISH))) + 4, 15)
    assert first.source.encode("老") == first.target.encode("t") == [1]
    again = load_tokenizers(run_dir)
    assert (again.source.sha256, again.target.sha256) == (first.source.sha256, first.target.sha256)
    assert first.source.sha256 != first.target.sha256


def test_a_tokenizer_is_trained_on_evenly_spaced_lines_where_there_are_more_than_it_may_read(
    run_dir, tmp_path, reports
):
    data = _config(joint_vocabulary=False, tokenizer_lines=5).data
    made = prepare_tokenizers(run_dir, data, _corpus(tmp_path), reports.append)
    assert made.source.vocab_size == len(set("".join(ENGLISH[::4]))) + 4 < len(set("".join(ENGLISH))) + 4


def test_a_vocabulary_that_cannot_be_filled_leaves_no_tokenizer(run_dir, tmp_path, reports):
    data = _config(tokenizer="unigram", source_vocab_size=9000).data
    with pytest.raises(UserError, match="^SentencePiece cannot train 9,000 pieces on this text: "):
        prepare_tokenizers(run_dir, data, _corpus(tmp_path), reports.append)
    assert not (run_dir / "tokenizer").exists()


def _user_model(path, text):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_writer=model,
        vocab_size=300,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    return str(path)


def test_a_users_models_are_taken_over(run_dir, tmp_path, reports):
    paths = [_user_model(tmp_path / name, text) for name, text in (("en.model", ENGLISH), ("zh.model", CHINESE))]
    data = _config(source_tokenizer_model=paths[0], target_tokenizer_model=paths[1], joint_vocabulary=False).data
    tokenizers = prepare_tokenizers(run_dir, data, _corpus(tmp_path), reports.append)
    for path in paths:
        (tmp_path / path).unlink()
    again = prepare_tokenizers(run_dir, data, _corpus(tmp_path), reports.append)
    for first, second, text in zip(tokenizers, again, (ENGLISH[0], CHINESE[0])):
        assert second.decode(second.encode(text)) == text and second.encode(text) == first.encode(text)


@pytest.mark.parametrize("joint", [False, True])
def test_the_tokenizers_of_another_run_are_taken_as_they_are(run_dir, tmp_path, reports, joint):
    base, corpus = tmp_path / "base", _corpus(tmp_path)
    theirs = prepare_tokenizers(base, _config(joint_vocabulary=joint).data, corpus, reports.append)
    data = _config(tokenizer_from=str(base), joint_vocabulary=joint, tokenizer="byte").data
    own = prepare_tokenizers(run_dir, data, corpus, reports.append)
    assert [each.sha256 for each in own] == [each.sha256 for each in theirs]
    assert (own.source is own.target) == joint
    shutil.rmtree(base / "tokenizer")  # the run has its own, and needs the other no more
    again = prepare_tokenizers(run_dir, data, corpus, reports.append)
    assert [each.sha256 for each in again] == [each.sha256 for each in theirs]
    prepare_tokenizers(base, _config(joint_vocabulary=joint, tokenizer="byte").data, corpus, reports.append)
    with pytest.raises(UserError, match="was trained with other tokenizers than data.tokenizer_from=.* has now"):
        prepare_tokenizers(run_dir, data, corpus, reports.append)


def test_tokenizers_of_another_run_that_do_not_fit_are_refused(run_dir, tmp_path, reports):
    base, corpus = tmp_path / "base", _corpus(tmp_path)
    prepare_tokenizers(base, _config(joint_vocabulary=False).data, corpus, reports.append)
    with pytest.raises(UserError, match="has two tokenizers: set it to False$"):
        prepare_tokenizers(run_dir, _config(tokenizer_from=str(base)).data, corpus, reports.append)
    with pytest.raises(UserError, match="none, which data.tokenizer_from names, has no folder tokenizer"):
        prepare_tokenizers(run_dir, _config(tokenizer_from=str(tmp_path / "none")).data, corpus, reports.append)
    assert not run_dir.exists()


def test_a_joint_vocabulary_needs_one_model(run_dir, tmp_path, reports):
    paths = [_user_model(tmp_path / name, text) for name, text in (("en.model", ENGLISH), ("zh.model", CHINESE))]
    data = _config(source_tokenizer_model=paths[0], target_tokenizer_model=paths[1]).data
    with pytest.raises(
        UserError,
        match=r"^`data\.joint_vocabulary` needs one SentencePiece model for both sides\. "
        r"Received: "
        r"\S+en\.model and \S+zh\.model; give the same, or set "
        r"data\.joint_vocabulary=False",
    ):
        prepare_tokenizers(run_dir, data, _corpus(tmp_path), reports.append)
    data.target_tokenizer_model = paths[0]
    tokenizers = prepare_tokenizers(run_dir, data, _corpus(tmp_path), reports.append)
    assert tokenizers.source is tokenizers.target


def test_a_users_model_that_cannot_be_read_is_named(run_dir, tmp_path, reports):
    (tmp_path / "text.model").write_text("no model")
    for name, message in (
        (
            "none.model",
            r"^Cannot read the SentencePiece model \S+none\.model: No such file or directory; check the path$",
        ),
        ("text.model", "The tokenizer's model is not a SentencePiece model"),
    ):
        data = _config(source_tokenizer_model=str(tmp_path / name), target_tokenizer_model=str(tmp_path / name)).data
        with pytest.raises(UserError, match=message):
            prepare_tokenizers(run_dir, data, _corpus(tmp_path), reports.append)
        assert not run_dir.exists()


def test_length_factor_is_one_unless_segmentations_are_sampled(run_dir, tmp_path, reports):
    corpus = _corpus(tmp_path)
    data = _config(tokenizer="unigram", source_vocab_size=298).data
    tokenizers = prepare_tokenizers(run_dir, data, corpus, reports.append)
    assert sampled_length_factor(tokenizers, corpus, 0.0) == 1.0
    assert 1.0 < sampled_length_factor(tokenizers, corpus, 0.1) < 3.0


@pytest.fixture
def trained(run_dir, tmp_path, reports):
    """A run with checkpoints of steps 5 and 9."""
    config = _config(joint_vocabulary=False)
    _open(run_dir, config)
    tokenizers = prepare_tokenizers(run_dir, config.data, _corpus(tmp_path), reports.append)
    model = build_seq2seq(config.model, tokenizers.source.vocab_size, tokenizers.target.vocab_size)
    checkpoints = Checkpoints(checkpoints_of(run_dir))
    for step in (5, 9):
        for variable in model.variables:
            variable.assign(np.full(variable.shape, step))
        checkpoints.save(step, tf.train.Checkpoint(model=by_path(model.variables), steps=tf.Variable(step)), {})
    return run_dir


@pytest.mark.parametrize("checkpoint, step", [("latest", 9), ("5", 5), (5, 5), ("best", 5)])
def test_a_run_is_loaded_from_the_checkpoint_that_was_asked_for(trained, checkpoint, step, reports):
    Checkpoints(checkpoints_of(trained)).mark_best(5, "dev_bleu", 1.0)
    del reports[:]
    run = load(trained, checkpoint=checkpoint, report=reports.append)
    assert run.step == step
    assert run.config == _config(joint_vocabulary=False)
    assert all((variable.numpy() == step).all() for variable in run.model.variables)
    assert run.tokenizers.target.decode(run.tokenizers.target.encode("老人")) == "老人"
    assert reports == [f"checkpoint: {checkpoint}, step {step} of {trained}"]


def test_a_run_is_loaded_with_averaged_weights(trained, reports):
    del reports[:]
    run = load(trained, checkpoint="averaged", report=reports.append)
    assert run.step == 9 and all((variable.numpy() == 7).all() for variable in run.model.variables)
    assert reports == [f"checkpoint: averaged, steps 5, 9 of {trained}"]


def test_what_may_change_is_reported_when_it_does(run_dir, trained, reports):
    config = _config(joint_vocabulary=False)
    config.decoding.min_length, config.training.max_steps = 12, 7
    del reports[:]
    with open_run_dir(trained, config, reports.append):
        pass
    assert reports == ["from now on: training.max_steps was 10000, now 7; decoding.min_length was 0, now 12"]
    assert read_config(trained) == config


def test_what_is_no_run_directory_is_refused(tmp_path):
    for path, what in (
        (tmp_path, f"{tmp_path} is no run directory: it has no readable config.json"),
        (tmp_path / "none", f"There is no folder {tmp_path}/none"),
    ):
        with pytest.raises(UserError, match=f"^{re.escape(what)}; give the --run_dir of a training job$"):
            load(path)
    (tmp_path / "1").mkdir()
    for version in (tmp_path / "1", tmp_path):
        (tmp_path / "1" / "saved_model.pb").touch()
        with pytest.raises(
            UserError,
            match="has no readable config.json; it is an export: give the run that it was made of, or --saved_model",
        ):
            load(version)


def test_a_run_without_tokenizer_or_checkpoint_is_refused(run_dir, tmp_path, reports):
    config = _config()
    _open(run_dir, config)
    with pytest.raises(UserError, match="first has not begun to train: python -m pipelines.train --run_dir="):
        load(run_dir)
    (run_dir / "tokenizer").mkdir()
    with pytest.raises(
        UserError, match=r"tokenizer/source holds no complete tokenizer \(.*\); restore the run directory$"
    ):
        load(run_dir)
    (run_dir / "tokenizer").rmdir()
    prepare_tokenizers(run_dir, config.data, _corpus(tmp_path), reports.append)
    with pytest.raises(UserError, match="^.*first has no checkpoint of a trained model yet; train it first$"):
        load(run_dir, checkpoint="latest")
    tokenizers = load_tokenizers(run_dir)
    model = build_seq2seq(config.model, tokenizers.source.vocab_size, tokenizers.target.vocab_size)
    Checkpoints(checkpoints_of(run_dir)).save(0, tf.train.Checkpoint(model=by_path(model.variables)), {})
    with pytest.raises(UserError, match="^.*first has no checkpoint of a trained model yet; train it first$"):
        load(run_dir, checkpoint="latest")
    with pytest.raises(UserError, match="has no best checkpoint: the run has not been evaluated yet"):
        load(run_dir, checkpoint="best")


@pytest.mark.parametrize("checkpoint", ["bets", "", "-1", "1.5", "²"])
def test_a_checkpoint_that_is_no_step_is_refused(trained, checkpoint):
    with pytest.raises(
        UserError, match=f"^There is no checkpoint '{checkpoint}'; give best, latest, averaged, ema or a step$"
    ):
        load(trained, checkpoint=checkpoint)


def test_a_step_that_was_not_saved_is_answered_with_those_that_were(trained):
    with pytest.raises(
        UserError, match="^The checkpoint of step 7 in .* cannot be used: there is none; there are: 5, 9$"
    ):
        load(trained, checkpoint="7")


def test_pretrained_vectors_fill_the_tables_and_say_how_much_they_cover(tmp_path):
    config = _config(joint_vocabulary=False, tokenizer="word", data_dir=str(tmp_path))
    config.model.source_vectors, config.model.target_vectors, config.model.d_embedding = "v.en.gz", "v.zh", 3
    tokenizers = prepare_tokenizers(tmp_path / "run", config.data, _corpus(tmp_path), lambda line: None)
    (tmp_path / "v.en.gz").write_bytes(gzip.compress(b"man 1 2 2\nwalks 2 1 2\n</s> 9 9 9\n<unk> 9 9 9\n"))
    (tmp_path / "v.zh").write_text("老人走路 3 0 0\n", encoding="utf-8")
    model = build_seq2seq(config.model, tokenizers.source.vocab_size, tokenizers.target.vocab_size)
    before, lines = np.array(model.source_embedding.table), []
    load_pretrained_vectors(model, tokenizers, config, lines.append)
    words = tokenizers.source.vocab_size - 4
    assert lines == [
        f"source vectors: {tmp_path}/v.en.gz covers 2 of {words} pieces ({2 / words:.1%}), few: the vectors are of "
        "words, as `data.tokenizer` word makes them",
        f"target vectors: {tmp_path}/v.zh covers 1 of 4 pieces (25.0%)",
    ]
    changed = np.flatnonzero((np.array(model.source_embedding.table) != before).any(-1))
    assert {tokenizers.source.piece(int(i)) for i in changed} == {"man", "walks"}
    [row] = tokenizers.target.encode("老人走路")
    np.testing.assert_allclose(
        model.target_embedding.table[row], [1.0, 0, 0], atol=1e-6
    )  # of size 1 / sqrt(3) a channel


def test_an_average_that_was_not_kept_is_refused(trained):
    with pytest.raises(UserError, match="keeps no moving average of its weights, which checkpoint ema asks for"):
        load(trained, checkpoint="ema")


def test_an_ensemble_needs_one_tokenizer(trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    run = load([trained, other], checkpoint="latest")
    assert isinstance(run.model, Ensemble) and len(run.model.members) == 2
    card = other / "tokenizer" / "source" / "tokenizer.json"
    values = json.loads(card.read_text(encoding="utf-8"))
    values["symbols"] = values["symbols"][::-1]
    card.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UserError, match=f"^{other} has other tokenizers than {trained}, and an ensemble needs"):
        load([trained, other], checkpoint="latest")


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"decoding.beamsize": 3}, "There is no field 'decoding.beamsize': give its path, such as decoding.beam_size"),
        ({"beam_size": 3}, "There is no field 'beam_size'"),
        ({"decode.beam_size": 3}, "There is no field 'decode.beam_size'"),
        ({"model.d_model": 4}, "model.d_model is part of the model that .* has trained"),
        ({"data.tokenizer": "byte"}, "data.tokenizer is part of the model"),
        ({"decoding.beam_size": 0}, "`decoding.beam_size` must be positive. Received: 0"),
    ],
)
def test_a_value_in_the_place_of_the_runs_own_must_be_one_of_a_field_that_may_differ(trained, overrides, message):
    with pytest.raises(UserError, match=message):
        load(trained, overrides, "latest")


def test_a_run_is_loaded_as_it_will_be_used(trained):
    asked = []
    run = load(trained, {"decoding.beam_size": 7, "data.data_dir": "/else"}, "latest", check=asked.append)
    assert (run.config.decoding.beam_size, run.config.data.data_dir, asked) == (7, "/else", [run.config])
    assert read_config(trained).decoding.beam_size == DecodingConfig().beam_size
