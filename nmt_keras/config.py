"""Every hyperparameter and its default, once.

The dataclasses are not frozen, because command lines override their fields (`--config.model.d_model=256`). Call
`ExperimentConfig.validate` after the last override: it reports all problems at once.
"""

import dataclasses
import json
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nmt_keras.errors import UserError


@dataclass
class DataConfig:
    """What is read, how it becomes ids, and how long a sentence may be (lengths are in ids, EOS included)."""

    source_language: str = "en"
    target_language: str = "zh"
    data_dir: str = ""  # prefix of relative paths
    train_source: tuple[str, ...] = ()  # text files, .gz files or tfds:<name>[#split]
    train_target: tuple[str, ...] = ()
    train_weights: tuple[float, ...] = ()  # visits of each line per epoch, one number a corpus; () is 1 for all
    train_example_weights: tuple[str, ...] = ()  # a file a corpus ("" for none): each line's weight in the loss
    dev_source: str = ""
    dev_target: str = ""  # several references of one source with commas; the dev loss is that of the first
    bleu_tokenizer: str = ""  # sacreBLEU's, such as flores200 or char; "" is that of the target language
    tokenizer: str = "unigram"
    source_tokenizer_model: str = ""  # a SentencePiece model of the user's; "" trains one
    target_tokenizer_model: str = ""
    joint_vocabulary: bool = True
    source_vocab_size: int = 8000  # of the joint vocabulary where there is one
    target_vocab_size: int = 8000
    tokenizer_lines: int = 1_000_000  # at most, of each side, evenly spaced, that tokenizers are trained on
    character_coverage: float = 0.9995  # of the text's characters; the rest are bytes, which are trained so
    byte_fallback: bool = True
    normalization: str = "identity"
    sampling_alpha: float = 0.0  # subword regularisation (Kudo 2018); 0 is off
    max_source_length: int = 128
    max_target_length: int = 128
    cache_dir: str = ""  # "" is $XDG_CACHE_HOME/nmt_keras or ~/.cache/nmt_keras
    static_shapes: bool = False  # pad to the bucket's boundary (TPU, XLA)
    on_findings: str = "refuse"  # what serious findings of the corpus doctor do: refuse, report; ignore never looks


@dataclass
class ModelConfig:
    """The network. `d_model` is the width of embeddings and states alike."""

    encoder: str = "rnn"
    decoder: str = "rnn"
    attention: str = "luong_general"
    d_model: int = 512
    num_encoder_layers: int = 1
    num_decoder_layers: int = 1
    cell: str = "lstm"  # of recurrent encoders and decoders, as the next five
    bidirectional: bool = True
    residual: bool = False  # around recurrent layers, from the one that `first_residual_layer` counts from 1
    first_residual_layer: int = 1
    input_feeding: bool = False
    bridge: str = "dense"  # decoder's first state: from a learned bridge, the encoder's last states, or zeros
    num_heads: int = 8  # of multi-head attention
    d_ff: int = 2048  # inner width of the feed-forward layers, as the next three of Transformers
    activation: str = "relu"
    pre_norm: bool = True
    attention_dropout_rate: float = 0.0  # on attention weights and inside the feed-forward layers
    positions: str = "sinusoidal"  # of Transformers and convolutions
    max_positions: int = 0  # of learned positions; those beyond share the last one's; 0 is the longest of training
    kernel_size: int = 3  # of convolutions
    input_dropout_rate: float = 0.1  # on embeddings
    state_dropout_rate: float = 0.0  # on h_{t-1}, one mask a sentence (Gal and Ghahramani 2016)
    output_dropout_rate: float = 0.1  # on what a recurrent layer or the attention hands up
    share_embeddings: bool = False  # source and target; needs a joint vocabulary
    tie_output: bool = False  # target embedding and softmax (Press and Wolf 2017)
    d_embedding: int = 0  # width of the embedding tables, which are then mapped to d_model; 0 is d_model
    source_vectors: str = ""  # word2vec, GloVe or fastText text file the table starts from; of both sides if shared
    target_vectors: str = ""
    freeze_vectors: bool = False  # train the rows that the file has not, alone


@dataclass
class TrainingConfig:
    """The training loop. Intervals are in steps; a step consumes one global batch."""

    max_steps: int = 10_000
    batch_tokens: int = 4096  # padded target positions of a global batch, that is of one update; 0 finds what fits
    batch_sentences: int = 0  # if positive: the batch is this many sentences instead
    accumulation_steps: int = 1
    optimizer: str = "adam"
    learning_rate: float = 1e-3  # the peak, where the schedule has one
    schedule: str = "inverse_sqrt"
    warmup_steps: int = 400
    weight_decay: float = 0.0  # adamw
    adam_beta2: float = 0.999  # of adam and adamw, as the next
    adam_epsilon: float = 1e-8
    clip_norm: float = 1.0  # of the global gradient; 0 is off
    label_smoothing: float = 0.1
    ema_decay: float = 0.0  # of the moving average of weights that --checkpoint=ema is, such as 0.999; 0 keeps none
    precision: str = "float32"  # auto is mixed_bfloat16 where the machine is fast at it; config.json says what it was
    distribution: str = "one_device"
    deterministic: bool = False  # the same bits from the same seed on a GPU too, at some cost; a CPU gives them anyway
    max_bad_steps: int = 5  # in a row, not finite, before training starts again from the checkpoint before them
    seed: int = 1
    log_every: int = 50
    evaluate_every: int = 500
    checkpoint_every: int = 500
    keep_checkpoints: int = 3
    best_metric: str = "dev_bleu"
    patience: int = 0  # evaluations without a better `best_metric` before training stops; 0 is never
    dev_sentences: int = 0  # dev sentences translated for dev BLEU; 0 is all
    dev_beam_size: int = 1


@dataclass
class DecodingConfig:
    """Search. A hypothesis of a source of S ids has at most min(max_length, max_length_ratio * S + 10) ids, and at
    least max(min_length, min_length_ratio * S) where these are fewer; EOS counts."""

    beam_size: int = 5
    length_penalty: float = 1.2  # alpha of the formula; 0 ranks by log probability; see benchmarks/NOTES.md
    length_penalty_kind: str = "gnmt"  # ((5 + length) / 6)^alpha, or average: length^alpha
    coverage_penalty: float = 0.0  # beta of Wu et al. 2016, eq. 14: what no target position reads costs
    max_length: int = 200
    max_length_ratio: float = 2.0
    min_length: int = 0
    min_length_ratio: float = 0.0
    no_repeat_ngram: int = 0  # no n ids in a row come twice; 0 is off
    repetition_penalty: float = 1.0  # of logits of ids that came before (Keskar et al. 2019); 1 is off
    shortlist: int = 0  # target ids that each source id proposes for the search; 0 searches the whole vocabulary
    banned_phrases: tuple[str, ...] = ()  # texts that no search finds
    max_beam_size: int = 16  # what a caller of an export may ask for, and so many hypotheses
    max_source_length: int = 256  # ids; a longer line is translated in part, with a warning
    max_source_characters: int = 10_000  # of a longer text the beginning is translated
    max_request_sentences: int = 256  # texts in a call of an export; those beyond are not translated
    batch_sentences: int = 64
    split_sentences: bool = False  # translate each sentence of a text, and join the translations
    replace_unknown: bool = False  # by the source word it reads most; word vocabularies alone


@dataclass
class ExperimentConfig:
    """One experiment: what a recipe returns and what `config.json` of a run directory holds."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)

    def validate(self) -> None:
        """Checks every field.

        Raises:
            UserError: names all problems, each with the field, its value and the rule.
        """
        self.normalise()
        problems = _type_problems(self) or _problems(self)
        if problems:
            raise UserError("; ".join(problems))

    def normalise(self) -> None:
        """Takes a text alone, where several files may be named, as one file."""
        for name in ("train_source", "train_target", "train_example_weights"):
            if isinstance(getattr(self.data, name), str):
                setattr(self.data, name, (getattr(self.data, name),))

    def resolve_positions(self) -> None:
        """Gives `model.max_positions` its number where it is 0."""
        if not self.model.max_positions:
            self.model.max_positions = self._longest()

    def _longest(self) -> int:
        return max(self.data.max_source_length, self.data.max_target_length)

    def to_json(self) -> str:
        """The experiment as JSON, a field a line."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "ExperimentConfig":
        """Reads what `to_json` wrote.

        Raises:
            UserError: the text is not JSON, or has a section, field or value that this version does not know.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"The configuration is not JSON ({error}); restore the config.json of the run") from error
        if not isinstance(values, dict):
            raise UserError("The configuration is no JSON object; restore the config.json of the run")
        sections = {}
        for section in dataclasses.fields(cls):
            kind = typing.cast(type, section.default_factory)
            given = values.pop(section.name, {})
            if not isinstance(given, dict):
                raise UserError(f"Section {section.name} of the configuration is no object; restore the config.json")
            known = {f.name for f in dataclasses.fields(kind)}
            for name in given:
                if name not in known:
                    raise UserError(f"Unknown field {section.name}.{name}; valid ones: {', '.join(sorted(known))}")
            sections[section.name] = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
        if values:
            raise UserError(f"Unknown section {sorted(values)[0]!r}; valid ones: {', '.join(sorted(sections))}")
        config = cls(**sections)
        config.validate()
        return config


CHOICES = {
    "data.tokenizer": ("unigram", "bpe", "char", "byte", "word"),
    "data.normalization": ("identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf"),
    "model.encoder": ("rnn", "gnmt", "conv", "transformer"),
    "model.decoder": ("rnn", "gnmt", "rnmt_plus", "conditional_gru", "conv", "transformer", "ssru"),
    "model.attention": (
        "none",
        "bahdanau",
        "bahdanau_normed",
        "luong_dot",
        "luong_general",
        "luong_scaled",
        "local_m",
        "local_p",
        "location",
        "coverage",
        "monotonic",
        "monotonic_hard",
        "multi_head",
    ),
    "model.cell": ("lstm", "gru", "rnn", "normed_lstm"),
    "model.activation": ("relu", "gelu", "swiglu"),
    "model.positions": ("sinusoidal", "learned", "rotary", "relative", "none"),
    "model.bridge": ("dense", "copy", "zeros"),
    "training.optimizer": ("adam", "adamw", "sgd"),
    "training.schedule": ("constant", "inverse_sqrt", "cosine", "luong_halving"),
    "training.precision": ("float32", "mixed_bfloat16", "mixed_float16", "auto"),
    "training.distribution": ("one_device", "mirrored", "multi_worker"),
    "training.best_metric": ("dev_bleu", "dev_loss"),
    "data.on_findings": ("refuse", "report", "ignore"),
    "decoding.length_penalty_kind": ("gnmt", "average"),
}
_POSITIVE = (
    "data.source_vocab_size",
    "data.target_vocab_size",
    "data.tokenizer_lines",
    "data.max_source_length",
    "data.max_target_length",
    "model.d_model",
    "model.num_encoder_layers",
    "model.num_decoder_layers",
    "model.num_heads",
    "model.d_ff",
    "model.kernel_size",
    "model.first_residual_layer",
    "training.max_steps",
    "training.accumulation_steps",
    "training.learning_rate",
    "training.adam_epsilon",
    "training.log_every",
    "training.evaluate_every",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "training.max_bad_steps",
    "training.dev_beam_size",
    "decoding.beam_size",
    "decoding.max_beam_size",
    "decoding.max_length",
    "decoding.max_length_ratio",
    "decoding.repetition_penalty",
    "decoding.max_source_length",
    "decoding.max_source_characters",
    "decoding.max_request_sentences",
    "decoding.batch_sentences",
)
_NOT_NEGATIVE = (
    "data.sampling_alpha",
    "model.d_embedding",
    "model.max_positions",
    "training.batch_tokens",
    "training.batch_sentences",
    "training.warmup_steps",
    "training.weight_decay",
    "training.clip_norm",
    "training.patience",
    "training.dev_sentences",
    "decoding.length_penalty",
    "decoding.coverage_penalty",
    "decoding.min_length",
    "decoding.min_length_ratio",
    "decoding.no_repeat_ngram",
    "decoding.shortlist",
)
_RATES = (
    "model.input_dropout_rate",
    "model.state_dropout_rate",
    "model.output_dropout_rate",
    "model.attention_dropout_rate",
    "training.label_smoothing",
    "training.adam_beta2",
    "training.ema_decay",
)


def _type_problems(config: ExperimentConfig) -> list[str]:
    problems = []
    for section in dataclasses.fields(config):
        values = getattr(config, section.name)
        for name, kind in typing.get_type_hints(type(values)).items():
            value = getattr(values, name)
            if not _is_of(value, kind):
                wanted = _KINDS[kind]
                problems.append(f"`{section.name}.{name}` must be {wanted}. Received: {value!r}")
    return problems


def _is_of(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is tuple:
        return isinstance(value, (tuple, list)) and all(_is_of(v, typing.get_args(kind)[0]) for v in value)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, kind)


_KINDS = {
    str: "a text",
    int: "a whole number",
    float: "a finite number",
    bool: "True or False",
    tuple[str, ...]: 'several texts, with a comma after one alone, as in ("train.en",)',
    tuple[float, ...]: "several finite numbers, with a comma after one alone, as in (1.0,)",
}


def _value(config: ExperimentConfig, name: str):
    section, leaf = name.split(".")
    return getattr(getattr(config, section), leaf)


RECURRENT_ENCODERS = ("rnn", "gnmt")  # of the registries; a test compares
_LAYERED_DECODERS = ("gnmt", "rnmt_plus")
RECURRENT_DECODERS = ("rnn", "conditional_gru", *_LAYERED_DECODERS)


def model_problems(model: ModelConfig) -> list[str]:
    """Combinations that do not go together, each with the reason; none where all do."""
    problems: list[str] = []

    def refuse(when: bool, why: str) -> None:
        if when:
            problems.append(why)

    parts = (model.encoder, model.decoder)
    both_ways = model.encoder == "gnmt" or model.encoder == "rnn" and model.bidirectional
    turned = model.positions == "rotary" and "transformer" in parts
    added = model.positions == "sinusoidal" and bool({"transformer", "conv"} & set(parts))
    is_recurrent = model.decoder in RECURRENT_DECODERS
    has_heads = bool({"transformer", "ssru"} & set(parts)) or is_recurrent and model.attention == "multi_head"
    refuse(
        both_ways and model.d_model % 2 > 0,
        "`model.d_model` must be even when the encoder reads both ways (`model.bidirectional`). "
        f"Received: d_model={model.d_model}",
    )
    refuse(
        has_heads and model.num_heads > 0 and model.d_model % model.num_heads > 0,
        "`model.num_heads` must divide `model.d_model`. "
        f"Received: d_model={model.d_model}, num_heads={model.num_heads}",
    )
    refuse(
        added and model.d_model % 2 > 0 or turned and model.num_heads > 0 and model.d_model // model.num_heads % 2 > 0,
        f"`model.positions` {model.positions} comes in pairs of channels: `model.d_model`, and with rotary d_model / "
        f"num_heads, must be even. Received: d_model={model.d_model}, num_heads={model.num_heads}",
    )
    refuse(
        "conv" in parts and model.positions in ("rotary", "relative"),
        f"`model.positions` {model.positions} is of self-attention: a convolution needs sinusoidal, learned or none",
    )
    refuse(
        model.encoder == "conv" and model.kernel_size % 2 == 0,
        f"`model.kernel_size` must be odd in a convolutional encoder, whose windows are centred. Received: "
        f"{model.kernel_size}",
    )
    refuse(
        model.share_embeddings and bool(model.target_vectors),
        "`model.target_vectors` must be empty when `model.share_embeddings` is set: `model.source_vectors` fills the "
        "one table",
    )
    refuse(
        model.freeze_vectors and not (model.source_vectors or model.target_vectors),
        "`model.freeze_vectors` needs `model.source_vectors` or `model.target_vectors`",
    )
    refuse(
        model.encoder == "gnmt" and model.num_encoder_layers < 2,
        f"`model.num_encoder_layers` must be at least 2 with encoder gnmt. Received: {model.num_encoder_layers}",
    )
    refuse(
        model.decoder in _LAYERED_DECODERS and model.num_decoder_layers < 2,
        f"`model.num_decoder_layers` must be at least 2 with decoder {model.decoder}: the second layer is the first "
        f"that reads the source. Received: {model.num_decoder_layers}",
    )
    refuse(
        model.positions != ModelConfig.positions and not {"transformer", "conv"} & set(parts),
        f"`model.positions` {model.positions} is of Transformers and convolutions: leave it out with encoder "
        f"{model.encoder} and decoder {model.decoder}, which see the order as they go",
    )
    if is_recurrent:
        problems += _recurrent_decoder_problems(model)
    else:
        refuse(
            model.attention != ModelConfig.attention,
            f"`model.attention` {model.attention} is of recurrent decoders: leave it out with decoder {model.decoder}, "
            "which has an attention of its own in every layer",
        )
        refuse(
            model.input_feeding,
            f"`model.input_feeding` needs a recurrent decoder; {model.decoder} attends to the source in every layer",
        )
    return problems


def _recurrent_decoder_problems(model: ModelConfig) -> list[str]:
    problems: list[str] = []
    if model.attention == "none" and model.decoder != "rnn":
        problems.append(f"`model.attention` must not be none with decoder {model.decoder}, which is built around it")
    if model.attention == "none" and model.bridge == "zeros":
        problems.append(
            "`model.bridge` must not be zeros when `model.attention` is none: the decoder would see nothing of the "
            "source"
        )
    if model.attention == "none" and model.input_feeding:
        problems.append("`model.input_feeding` feeds what attention read: it needs `model.attention` other than none")
    if model.bridge == "copy" and model.encoder not in RECURRENT_ENCODERS:
        problems.append(
            f"`model.bridge` copy needs a recurrent encoder, whose last states it copies; encoder {model.encoder} has "
            "none: use dense"
        )
    if model.decoder == "conditional_gru":
        if model.cell != "gru" or model.num_decoder_layers != 1:
            problems.append(
                "decoder conditional_gru is one layer of two GRUs: it needs `model.cell` gru and "
                f"`model.num_decoder_layers` 1. Received: {model.cell} and {model.num_decoder_layers}"
            )
        if model.input_feeding:
            problems.append("`model.input_feeding` is built into decoder conditional_gru: leave it off")
    return problems


def _problems(config: ExperimentConfig) -> list[str]:
    problems: list[str] = []
    rules: list[tuple[str, str, Callable[[Any], bool]]] = []
    rules += [(n, f"must be one of {', '.join(choices)}", choices.__contains__) for n, choices in CHOICES.items()]
    rules += [(n, "must be positive", lambda v: v > 0) for n in _POSITIVE]
    rules += [(n, "must not be negative", lambda v: v >= 0) for n in _NOT_NEGATIVE]
    rules += [(n, "must be at least 0 and below 1", lambda v: 0 <= v < 1) for n in _RATES]
    rules += [("data.character_coverage", "must be above 0 and at most 1", lambda v: 0 < v <= 1)]
    rules += [("training.seed", "must be at least 0 and below 2**31", lambda v: 0 <= v < 2**31)]
    for name, rule, holds in rules:
        if not holds(_value(config, name)):
            problems.append(f"`{name}` {rule}. Received: {_value(config, name)!r}")
    data, model, training = config.data, config.model, config.training
    if not data.train_source or len(data.train_source) != len(data.train_target):
        problems.append(
            "`data.train_source` and `data.train_target` must name as many corpora, at least one. "
            f"Received: {list(data.train_source)} and {list(data.train_target)}"
        )
    if data.train_weights and (len(data.train_weights) != len(data.train_source) or min(data.train_weights) <= 0):
        problems.append(
            "`data.train_weights` must be empty or one positive number for each of "
            f"`data.train_source`. Received: {list(data.train_weights)}"
        )
    if data.train_example_weights and len(data.train_example_weights) != len(data.train_source):
        problems.append(
            '`data.train_example_weights` must be empty or name a file, or "", for each of `data.train_source`. '
            f"Received: {list(data.train_example_weights)}"
        )
    if training.distribution == "tpu":
        problems[:] = [problem for problem in problems if "training.distribution" not in problem]
        problems.append(
            "`training.distribution` tpu needs batches of one static shape, which the input pipeline has not yet: use "
            "one_device, mirrored or multi_worker"
        )
    if not (data.dev_source and data.dev_target):
        problems.append("`data.dev_source` and `data.dev_target` must be set: the best checkpoint is chosen on them")
    problems += model_problems(model)
    if model.positions == "learned" and model.max_positions > config._longest():
        problems.append(
            f"`model.max_positions` must be at most {config._longest()} when `model.positions` is learned, the longest "
            "sentence of training (`data.max_source_length`, `data.max_target_length`): those beyond would not be "
            "learned; 0 stands for it. "
            f"Received: {model.max_positions}"
        )
    if model.share_embeddings and not data.joint_vocabulary:
        problems.append("`model.share_embeddings` needs `data.joint_vocabulary`. Received: joint_vocabulary=False")
    if data.sampling_alpha and not data.source_tokenizer_model and data.tokenizer not in ("unigram", "bpe"):
        problems.append(
            "`data.sampling_alpha` needs a SentencePiece tokenizer (unigram or bpe). "
            f"Received: tokenizer={data.tokenizer!r}"
        )
    if bool(data.source_tokenizer_model) != bool(data.target_tokenizer_model):
        problems.append(
            "`data.source_tokenizer_model` and `data.target_tokenizer_model` must be given together; "
            "for a joint vocabulary give the same file twice"
        )
    if config.decoding.coverage_penalty and model.attention == "none":
        problems.append(
            "`decoding.coverage_penalty` sums attention weights: it needs `model.attention` other than none"
        )
    if config.decoding.min_length > config.decoding.max_length:
        problems.append(
            "`decoding.min_length` must be at most `decoding.max_length`. "
            f"Received: {config.decoding.min_length} and {config.decoding.max_length}"
        )
    words = data.tokenizer == "word" and not data.source_tokenizer_model
    if config.decoding.replace_unknown and (not words or model.attention == "none"):
        problems.append(
            "`decoding.replace_unknown` puts the source word that attention reads in the place of an unknown one: it "
            "needs `data.tokenizer` word, and an attention. "
            f"Received: {data.tokenizer!r} and {model.attention!r}"
        )
    if config.decoding.batch_sentences > config.decoding.max_request_sentences:
        problems.append(
            "`decoding.batch_sentences` must be at most `decoding.max_request_sentences`: a server merges so many. "
            f"Received: {config.decoding.batch_sentences} and {config.decoding.max_request_sentences}"
        )
    if config.decoding.max_source_length < 2:
        problems.append(
            "`decoding.max_source_length` must be at least 2: EOS counts. Received: "
            f"{config.decoding.max_source_length}"
        )
    if "" in config.decoding.banned_phrases:
        problems.append("`decoding.banned_phrases` must not hold an empty text, which every translation contains")
    if training.weight_decay and model.freeze_vectors:
        problems.append("`training.weight_decay` must be 0 with `model.freeze_vectors`: it would shrink frozen vectors")
    if training.weight_decay and training.optimizer != "adamw":
        problems.append(
            "`training.weight_decay` needs `training.optimizer` adamw. "
            f"Received: {training.weight_decay!r} and {training.optimizer!r}"
        )
    if not training.batch_tokens and not training.batch_sentences and training.distribution == "multi_worker":
        problems.append(
            "`training.batch_tokens` 0, which finds what fits, needs `training.distribution` one_device or mirrored. "
            f"Received: {training.distribution!r}"
        )
    if not training.batch_sentences and 0 < training.batch_tokens < data.max_target_length:
        problems.append(
            "`training.batch_tokens` must be at least `data.max_target_length`, or no batch holds the "
            f"longest sentence. Received: {training.batch_tokens} and {data.max_target_length}"
        )
    return problems
