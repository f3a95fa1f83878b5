"""A first recipe for a user's own text, sized to the text and the machine by stated rules."""

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from nmt_keras import files
from nmt_keras.config import DataConfig
from nmt_keras.data.corpus import ParallelCorpus
from nmt_keras.data.languages import language_of
from nmt_keras.doctor.lengths import lengths_of
from nmt_keras.errors import UserError
from nmt_keras.experiment.text import open_train
from nmt_keras.reports import Report, counted, silent
from nmt_keras.tokenizers.building import sample_tokenizers
from nmt_keras.tokenizers.characters import ByteTokenizer

_FEWEST_PAIRS = 200
_SAMPLED = 100  # lines of each side
_VOCABULARIES = (1000, 2000, 4000, 8000, 16_000, 32_000)
_PAIRS_A_PIECE = 6
_HELD_OUT, _MOST_HELD_OUT = 0.05, 2000
_STEPS = (2000, 100_000)


class _Network(NamedTuple):
    """A Transformer, with the peak of its learning rate."""

    d_model: int
    d_ff: int
    num_layers: int
    dropout: float
    learning_rate: float


# On a CPU and on a GPU, each up to so many pairs and beyond. The first had 40 BLEU on Multi30k in 83 minutes of a
# core; the others are set after published ones of such text, and were not measured.
_MANY_PAIRS = 200_000
_NETWORKS = {
    (False, False): _Network(128, 256, 4, 0.2, 4e-3),
    (False, True): _Network(256, 1024, 3, 0.1, 2e-3),
    (True, False): _Network(256, 1024, 4, 0.3, 2e-3),
    (True, True): _Network(512, 2048, 6, 0.1, 1e-3),
}


def write_recipe(data: DataConfig, path: str | os.PathLike, report: Report = silent) -> dict[str, Any]:
    """Looks at text, and writes a recipe for it that explains its values.

    Args:
        data: names the training text, the languages and the cache.
        path: of the recipe.
        report: takes a line for the user.

    Returns:
        What was decided, by the paths of fields.

    Raises:
        UserError: the text cannot be read, or is too small.
    """
    data = dataclasses.replace(data)
    corpus = open_train(data, report)
    pairs = len(corpus)
    if pairs < _FEWEST_PAIRS:
        raise UserError(
            f"{', '.join(data.train_source)}: {pairs:,} pairs, and a model needs {_FEWEST_PAIRS:,} at least; give more "
            "text, as a further --data"
        )
    _require_text(corpus, data)
    for code in (data.source_language, data.target_language):
        if not language_of(code).is_known:
            report(f"warning: the language {code!r} is in no table: check its code, such as en or zh-Hant (ISO 639)")
    held_out = min(_MOST_HELD_OUT, int(_HELD_OUT * pairs))
    scripts = [set(language_of(code).scripts) for code in (data.source_language, data.target_language)]
    data.joint_vocabulary = bool(scripts[0] & scripts[1]) or not all(scripts)
    wanted = max((size for size in _VOCABULARIES if size * _PAIRS_A_PIECE <= pairs), default=_VOCABULARIES[0])
    data.source_vocab_size = data.target_vocab_size = wanted
    trained_on = dataclasses.replace(data, dev_pairs=held_out, test_pairs=held_out)
    tokenizers = sample_tokenizers(data, open_train(trained_on, silent))
    sizes = [each.vocab_size for each in tokenizers]
    is_bytes = isinstance(tokenizers.source, ByteTokenizer)
    data.source_vocab_size, data.target_vocab_size = (  # the default alone becomes as small as the text asks for
        DataConfig.source_vocab_size if size < wanted and not is_bytes else wanted for size in sizes
    )
    found = lengths_of(corpus, tokenizers)
    suggested, median = found["suggested"], found["lengths"]["target"]["p50"]
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    network = _NETWORKS[has_gpu, pairs > _MANY_PAIRS]
    batch_tokens = min(suggested["batch_tokens"], 25_000 if has_gpu else 4096)
    steps_of_epoch = (pairs - 2 * held_out) * (median + 1) / batch_tokens
    steps = int((60 if pairs < 50_000 else 30 if pairs < 500_000 else 10) * steps_of_epoch)
    steps = min(max(-(-steps // 100) * 100, _STEPS[0]), _STEPS[1])
    epochs = round(steps / steps_of_epoch, 0 if steps > 10 * steps_of_epoch else 1)
    values = {
        "dev_pairs": held_out,
        "test_pairs": held_out,
        "tokenizer": "byte" if is_bytes else "unigram",
        "joint_vocabulary": data.joint_vocabulary,
        "source_vocab_size": data.source_vocab_size,
        "target_vocab_size": data.target_vocab_size,
        "max_source_length": suggested["max_source_length"],
        "max_target_length": suggested["max_target_length"],
        "batch_tokens": batch_tokens,
        "max_steps": steps,
        "evaluate_every": max(steps // 20, 100),
        "warmup_steps": min(1000, steps // 8),
    }
    files.write_text(
        path,
        _TEMPLATE.format(
            sources=_tuple(data.train_source),
            targets=_tuple(data.train_target if any(data.train_target) else ()),
            pairs=pairs,
            epochs=f"{epochs:,g}",
            scripts="share a script" if data.joint_vocabulary else "are written in other scripts",
            machine="a GPU" if has_gpu else "a CPU",
            size="more" if pairs > _MANY_PAIRS else "at most",
            many=_MANY_PAIRS,
            source=data.source_language,
            target=data.target_language,
            data_dir=_quoted(os.path.abspath(data.data_dir)),
            num_heads=network.d_model // 32,
            network=network,
            **values,
        ),
    )
    report(
        f"{counted(pairs, 'pair')}, about {counted(median, 'piece')} each; {held_out:,} are the dev set, {held_out:,} "
        f"the test set; {' and '.join(dict.fromkeys(map(str, sizes)))} pieces; a Transformer {network.d_model} wide; "
        f"{steps:,} steps, about {epochs:,g} epochs"
    )
    return {**values, **network._asdict()}


def _require_text(corpus: ParallelCorpus, data: DataConfig) -> None:
    """Refuses a column of numbers, such as those that tables begin with."""
    targets = [target or source for source, target in zip(data.train_source, data.train_target)]
    sides = ((corpus.sources, data.train_source, data.source_language), (corpus.targets, targets, data.target_language))
    for texts, names, code in sides:
        for text, name in zip(texts, names):
            lines = text.lines(range(min(len(text), _SAMPLED)))
            with_letters = sum(any(character.isalpha() for character in line) for line in lines)
            if 2 * with_letters < len(lines):  # a header has some
                raise UserError(
                    f"{name} has letters in {with_letters} of the first {counted(len(lines), 'line')} taken for "
                    f"{code!r}: name the columns after #, by their names or numbers from 1, as in "
                    f"--data={name}#2,{name}#3"
                )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _tuple(names: Sequence[str]) -> str:
    return f"({', '.join(map(_quoted, names))}{',' * (len(names) == 1)})"


_TEMPLATE = '''"""{source} to {target}, {pairs:,} pairs. Written by pipelines.start; change what you like.

Fields that are not here have their defaults; docs/configuration.md lists all. Translate with --checkpoint=ema.
"""

from nmt_keras import DataConfig, DecodingConfig, ExperimentConfig, ModelConfig, TrainingConfig


def get_config() -> ExperimentConfig:
    """The experiment."""
    return ExperimentConfig(
        DataConfig(
            source_language="{source}",
            target_language="{target}",
            data_dir={data_dir},
            train_source={sources},
            train_target={targets},  # empty where each source holds both sides
            # 5% of the pairs, at most 2,000, are taken out of the training text to choose checkpoints by, and as many
            # to measure on; both are written to split/ in the run directory.
            dev_pairs={dev_pairs},
            test_pairs={test_pairs},
            tokenizer="{tokenizer}",
            joint_vocabulary={joint_vocabulary},  # the languages {scripts}
            # A piece for every 6 pairs, of 1,000 to 32,000: rarer ones are hardly learned. Where a side has fewer,
            # 8,000, which becomes as many as it has.
            source_vocab_size={source_vocab_size},
            target_vocab_size={target_vocab_size},
            # 99.9% of the sentences are no longer; the rest are left out of training.
            max_source_length={max_source_length},
            max_target_length={max_target_length},
        ),
        # For {size} {many:,} pairs on {machine}. More dropout for less text.
        ModelConfig(
            encoder="transformer",
            decoder="transformer",
            d_model={network.d_model},
            d_ff={network.d_ff},
            num_heads={num_heads},
            num_encoder_layers={network.num_layers},
            num_decoder_layers={network.num_layers},
            input_dropout_rate={network.dropout},
            output_dropout_rate={network.dropout},
            attention_dropout_rate={network.dropout},
            share_embeddings={joint_vocabulary},
            tie_output=True,
        ),
        TrainingConfig(
            max_steps={max_steps},  # about {epochs} epochs, in 2,000 to 100,000 steps
            patience=10,  # or until ten evaluations in a row were no better
            batch_tokens={batch_tokens},
            learning_rate={network.learning_rate},
            schedule="cosine",
            warmup_steps={warmup_steps},
            adam_beta2=0.98,
            adam_epsilon=1e-9,
            label_smoothing=0.1,
            ema_decay=0.999,  # the mean of the weights over some 1,000 steps, which translates better than the last
            precision="auto",
            evaluate_every={evaluate_every},
            checkpoint_every={evaluate_every},
        ),
        DecodingConfig(beam_size=5, length_penalty=1.0),
    )
'''
