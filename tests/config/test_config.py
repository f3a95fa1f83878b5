"""The configuration: all problems at once, and the way to JSON and back."""

import importlib
import json
import pathlib
import re

import pytest

from nmt_keras.config import DataConfig, ExperimentConfig, ModelConfig, TrainingConfig
from nmt_keras.config.fields import ALLOWED, FREE, REFUSED, fields_of, spec
from nmt_keras.config.reference import markdown
from nmt_keras.config.rules import training_doubts
from nmt_keras.errors import UserError

RECIPES = sorted(p.stem for p in (pathlib.Path(__file__).parents[2] / "pipelines/recipes").glob("[a-z]*.py"))


def _config(**data):
    return ExperimentConfig(
        DataConfig(train_source=("a",), train_target=("b",), dev_source=("c",), dev_target=("d",), **data)
    )


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_valid_and_survive_json(name):
    config = importlib.import_module(f"pipelines.recipes.{name}").get_config()
    config.validate()
    assert ExperimentConfig.from_json(config.to_json()) == config


def test_all_problems_are_reported_at_once():
    config = _config(tokenizer="wordpiece")
    config.model = ModelConfig(d_model=7)
    config.training.label_smoothing = 1.0
    with pytest.raises(UserError) as error:
        config.validate()
    assert str(error.value) == (
        "`data.tokenizer` must be one of unigram, bpe, char, byte, word. Received: 'wordpiece'; "
        "`training.label_smoothing` must be at least 0 and below 1. Received: 1.0; "
        "`model.d_model` must be even when the encoder reads both ways (`model.bidirectional`). Received: d_model=7"
    )


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: setattr(c.data, "train_target", ("a", "b")), "must name as many corpora"),
        (lambda c: setattr(c.data, "train_weights", (1.0, 2.0)), "one positive number for each"),
        (lambda c: setattr(c.data, "dev_source", ""), "must name as many dev sets, at least one: the best checkpoint"),
        (
            lambda c: (setattr(c.model, "share_embeddings", True), setattr(c.data, "joint_vocabulary", False)),
            "joint_vocabulary",
        ),
        (lambda c: (setattr(c.model, "attention", "none"), setattr(c.model, "bridge", "zeros")), "would see nothing"),
        (lambda c: (setattr(c.model, "attention", "none"), setattr(c.model, "input_feeding", True)), "other than none"),
        (
            lambda c: (setattr(c.data, "sampling_alpha", 0.1), setattr(c.data, "tokenizer", "char")),
            "needs a SentencePiece",
        ),
        (lambda c: setattr(c.data, "source_tokenizer_model", "x.model"), "must be given together"),
        (
            lambda c: (setattr(c.model, "positions", "learned"), setattr(c.model, "max_positions", 129)),
            "`model.max_positions` must be at most 128 when `model.positions` is learned",
        ),
        (lambda c: setattr(c.training, "batch_tokens", 100), "at least `data.max_target_length`"),
        (lambda c: setattr(c.training, "max_steps", 0), "`training.max_steps` must be positive. Received: 0"),
        (lambda c: setattr(c.decoding, "banned_phrases", ("a", "")), "must not hold an empty text"),
        (lambda c: setattr(c.decoding, "batch_sentences", 257), "must be at most `decoding.max_request_sentences`"),
        (
            lambda c: (setattr(c.decoding, "recombine", 3), setattr(c.decoding, "no_repeat_ngram", 3)),
            "`decoding.recombine` forgets how hypotheses began",
        ),
        (lambda c: setattr(c.decoding, "beam_groups", 9), "must be at most `decoding.beam_size`. Received: 9 and 5"),
        (
            lambda c: (setattr(c.decoding, "beam_groups", 2), setattr(c.decoding, "recombine", 3)),
            "`decoding.beam_groups` does not go with `decoding.recombine`",
        ),
        (lambda c: setattr(c.decoding, "max_source_length", 1), "must be at least 2: EOS counts. Received: 1"),
        (lambda c: setattr(c.decoding, "min_length", 201), "must be at most `decoding.max_length`"),
        (lambda c: setattr(c.decoding, "length_penalty_kind", "mean"), "must be one of gnmt, average"),
        (
            lambda c: (setattr(c.model, "attention", "none"), setattr(c.decoding, "coverage_penalty", 0.2)),
            "sums attention weights",
        ),
        (
            lambda c: (
                setattr(c.model, "source_vectors", "v"),
                setattr(c.model, "freeze_vectors", True),
                setattr(c.training, "optimizer", "adamw"),
                setattr(c.training, "weight_decay", 0.1),
            ),
            "it would shrink frozen vectors",
        ),
        (lambda c: setattr(c.decoding, "length_penalty", -1.0), "`decoding.length_penalty` must not be negative"),
        (lambda c: setattr(c.data, "character_coverage", 0.0), "above 0 and at most 1"),
        (lambda c: setattr(c.training, "loss", "distillation"), "`training.teacher`, a run directory, belongs to"),
        (lambda c: setattr(c.training, "teacher", ("runs/big",)), r"Received: \['runs/big'\] and 'cross_entropy'"),
        (lambda c: setattr(c.data, "user_symbols", ("<a b>",)), "must be texts without space"),
        (
            lambda c: (setattr(c.data, "tokenizer", "char"), setattr(c.data, "user_symbols", ("<BT>",))),
            "are for a tokenizer that is trained here",
        ),
        (lambda c: setattr(c.training, "num_risk_candidates", 1), "must be at least 2. Received: 1"),
        (lambda c: setattr(c.training, "risk_weight", 1.5), "must be from 0 to 1. Received: 1.5"),
        (
            lambda c: (setattr(c.data, "tokenizer_from", "runs/a"), setattr(c.data, "source_tokenizer_model", "m")),
            "cannot both say what the tokenizers are",
        ),
    ],
)
def test_a_problem_is_named_with_its_rule(change, message):
    config = _config()
    config.validate()
    change(config)
    with pytest.raises(UserError, match=message):
        config.validate()


@pytest.mark.parametrize("schedule", ["inverse_sqrt", "cosine", "constant", "luong_halving"])
def test_a_rate_that_only_rises_is_doubted(schedule):
    training = TrainingConfig(schedule=schedule, warmup_steps=4000, max_steps=4000)
    doubts = training_doubts(training)
    if schedule in ("constant", "luong_halving"):  # without a warm-up
        assert doubts == []
        return
    assert doubts == [
        "the learning rate rises until step 4,000 (training.warmup_steps), and training ends at step 4,000 "
        "(training.max_steps), so that nearly all of it has less than the rate that is asked for: give fewer "
        "warmup_steps, or more max_steps"
    ]
    training.max_steps += 1
    assert training_doubts(training) == []


def test_unknown_fields_of_a_saved_configuration_are_refused_with_the_valid_ones():
    values = json.loads(_config().to_json())
    values["model"]["heads"] = 8
    with pytest.raises(UserError, match="Unknown field model.heads; valid ones: activation, attention"):
        ExperimentConfig.from_json(json.dumps(values))
    with pytest.raises(UserError, match="Unknown section 'extra'; valid ones: data, decoding, model, training"):
        ExperimentConfig.from_json('{"extra": 1}')
    with pytest.raises(UserError, match="not JSON"):
        ExperimentConfig.from_json("{")


def test_learned_positions_are_those_of_the_longest_training_sentence():
    config = _config(max_source_length=40, max_target_length=70)
    config.model.encoder, config.model.positions = "transformer", "learned"
    config.validate()
    config.resolve_positions()
    assert config.model.max_positions == 70
    config.resolve_positions()
    config.validate()


def test_defaults_are_valid_once_there_is_data():
    assert TrainingConfig().batch_tokens >= DataConfig().max_target_length
    _config().validate()


def test_the_reference_in_the_documentation_is_that_of_the_fields():
    path = pathlib.Path(__file__).parents[2] / "docs" / "configuration.md"
    assert (
        path.read_text(encoding="utf-8") == markdown()
    ), "run python -m nmt_keras.config.reference > docs/configuration.md"


def test_every_field_says_what_it_is_and_its_default_keeps_its_own_rule():
    config = _config()
    for field in fields_of(ExperimentConfig):
        assert field.spec.help and not field.spec.help.endswith(".")
        assert field.spec.resume in (ALLOWED, FREE, REFUSED)
        assert not field.problem_in(config) and not field.type_problem_in(config)
        assert not field.spec.choices or field.default in field.spec.choices


def test_a_field_has_one_rule():
    with pytest.raises(ValueError, match="A field has one rule"):
        spec(1, "a number", positive=True, not_negative=True)


@pytest.mark.parametrize(
    "training, static_shapes, message",
    [
        ({"compile": "step"}, False, "it needs `data.static_shapes` True"),
        ({"compile": "step", "distribution": "mirrored"}, True, "take parts with `training.distribution` mirrored"),
        ({"compile": "step", "loss": "minimum_risk"}, True, "`training.compile` must not be step"),
        ({"compile": "parts", "distribution": "parameter_server"}, False, "must be auto or off with"),
        (
            {"compile": "parts", "distribution": "tpu"},
            True,
            "`training.compile` auto or step. Received: True and parts",
        ),
        (
            {"distribution": "local_sgd", "batch_tokens": 0},
            False,
            "needs `training.distribution` one_device or mirrored",
        ),
    ],
)
def test_what_is_compiled_and_where_it_runs_go_together(training, static_shapes, message):
    config = _config(static_shapes=static_shapes)
    for name, value in training.items():
        setattr(config.training, name, value)
    with pytest.raises(UserError, match=re.escape(message)):
        config.validate()
