"""The rules of an experiment's fields: of each by itself, and of their combinations."""

from typing import TYPE_CHECKING

from nmt_keras.config.data import DataConfig, tag_of
from nmt_keras.config.fields import fields_of
from nmt_keras.config.model import ModelConfig
from nmt_keras.config.training import TrainingConfig

if TYPE_CHECKING:
    from nmt_keras.config.experiment import ExperimentConfig

# Values of training.distribution that need a cluster.
OF_SEVERAL_WORKERS = ("multi_worker", "local_sgd", "parameter_server")
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


def problems_of(config: "ExperimentConfig") -> list[str]:
    """Lists all that is wrong with an experiment, each problem with the field, its value and the rule.

    If the type of any value is wrong, only wrong types are listed.
    """
    fields = list(fields_of(type(config)))
    wrong_types = list(filter(None, (field.type_problem_in(config) for field in fields)))
    if wrong_types:
        return wrong_types
    problems = [field.problem_in(config) for field in fields]
    return [*filter(None, problems), *_problems_of_combinations(config)]


def _problems_of_combinations(config: "ExperimentConfig") -> list[str]:
    return [
        *_corpus_problems(config.data),
        *model_problems(config.model),
        *_tokenizer_problems(config),
        *_decoding_problems(config),
        *_training_problems(config),
    ]


def _corpus_problems(data: DataConfig) -> list[str]:
    problems: list[str] = []
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
    if data.train_alignments and len(data.train_alignments) != len(data.train_source):
        problems.append(
            '`data.train_alignments` must be empty or name a file, or "", for each of `data.train_source`. '
            f"Received: {list(data.train_alignments)}"
        )
    if data.dev_pairs and (data.dev_source or data.dev_languages):
        problems.append(
            "`data.dev_pairs` takes a dev set of each language out of the training text: leave `data.dev_source` and "
            f"`data.dev_languages` out. Received: {data.dev_pairs}, {list(data.dev_source)}, {list(data.dev_languages)}"
        )
    elif data.test_pairs and not data.dev_pairs:
        problems.append(f"`data.test_pairs` needs `data.dev_pairs`. Received: {data.test_pairs} and 0")
    elif not data.dev_pairs and (not data.dev_source or len(data.dev_source) != len(data.dev_target)):
        problems.append(
            "`data.dev_source` and `data.dev_target` must name as many dev sets, at least one: the best checkpoint is "
            "chosen on them (several references of one are one text with commas); or set `data.dev_pairs`. "
            f"Received: {list(data.dev_source)} and {list(data.dev_target)}"
        )
    if data.train_weights and data.train_temperature != 1.0:
        problems.append(
            "`data.train_weights` and `data.train_temperature` both say how often a corpus is visited: leave one out. "
            f"Received: {list(data.train_weights)} and {data.train_temperature:g}"
        )
    return [*problems, *_language_problems(data)]


def _language_problems(data: DataConfig) -> list[str]:
    """What is wrong with a model of several target languages."""
    problems: list[str] = []
    known = data.target_languages or (data.target_language,)
    if data.train_languages and len(data.train_languages) != len(data.train_source):
        problems.append(
            "`data.train_languages` must be empty or name the target language of each of `data.train_source`. "
            f"Received: {list(data.train_languages)}"
        )
    if any(not language or any(c.isspace() for c in language) for language in data.train_languages):
        problems.append(f"`data.train_languages` must be codes such as de. Received: {list(data.train_languages)}")
    if data.target_language not in known:
        problems.append(
            f"`data.target_language`, which is taken where none is asked for, must be one of `data.train_languages`. "
            f"Received: {data.target_language!r} and {list(data.train_languages)}"
        )
    if problems:
        return problems
    dev_sets = len(data.dev_source) or len(set(data.languages_of_train))
    if len(data.languages_of_dev) != dev_sets or not set(data.languages_of_dev) <= set(known):
        problems.append(
            "`data.dev_languages` must name the target language of each of `data.dev_source`, one of "
            f"{', '.join(known)}; empty stands for one dev set of each, in this order. Received: "
            f"{list(data.dev_languages)} for {list(data.dev_source)}"
        )
    if set(map(tag_of, data.target_languages)) & set(data.user_symbols):
        problems.append(
            "`data.user_symbols` must not hold the tags of `data.train_languages`, which no text is cut into. "
            f"Received: {list(data.user_symbols)}"
        )
    makes_pieces = data.tokenizer in ("unigram", "bpe") or data.source_tokenizer_model or data.tokenizer_from
    if data.train_languages and not makes_pieces:
        problems.append(
            "`data.train_languages` needs a tokenizer with a piece for each language's tag: `data.tokenizer` unigram "
            f"or bpe. Received: {data.tokenizer!r}"
        )
    return problems


def _tokenizer_problems(config: "ExperimentConfig") -> list[str]:
    problems: list[str] = []
    data, model = config.data, config.model
    if model.positions == "learned" and model.max_positions > config.longest_sentence:
        problems.append(
            f"`model.max_positions` must be at most {config.longest_sentence} when `model.positions` is learned, the "
            "longest sentence of training (`data.max_source_length`, `data.max_target_length`): those beyond would not "
            f"be learned; 0 stands for it. Received: {model.max_positions}"
        )
    if model.share_embeddings and not data.joint_vocabulary:
        problems.append("`model.share_embeddings` needs `data.joint_vocabulary`. Received: joint_vocabulary=False")
    if data.sampling_alpha and not data.source_tokenizer_model and data.tokenizer not in ("unigram", "bpe"):
        problems.append(
            "`data.sampling_alpha` needs a SentencePiece tokenizer (unigram or bpe). "
            f"Received: tokenizer={data.tokenizer!r}"
        )
    makes_pieces = data.tokenizer in ("unigram", "bpe") and not (data.source_tokenizer_model or data.tokenizer_from)
    if data.user_symbols and not makes_pieces:
        problems.append(
            "`data.user_symbols` are for a tokenizer that is trained here, unigram or bpe. "
            f"Received: {list(data.user_symbols)} and tokenizer={data.tokenizer!r}"
        )
    for name in ("placeholders", "annotated_terms"):
        if getattr(data, name) and not (makes_pieces or data.tokenizer_from):
            problems.append(
                f"`data.{name}` needs a tokenizer that has pieces for them: one that is trained here, unigram or bpe, "
                f"or `data.tokenizer_from` a run that has them. Received: {getattr(data, name)!r} and "
                f"tokenizer={data.tokenizer!r}"
            )
    if data.placeholders and data.annotated_terms:
        problems.append("`data.placeholders` and `data.annotated_terms` do not go together: leave one out")
    if data.placeholders and any(data.train_alignments):
        problems.append(
            "`data.placeholders` makes other words of the text than `data.train_alignments` links: leave one out. "
            f"Received: {list(data.placeholders)} and {list(data.train_alignments)}"
        )
    if any(not symbol or any(c.isspace() for c in symbol) for symbol in data.user_symbols):
        problems.append(f"`data.user_symbols` must be texts without space. Received: {list(data.user_symbols)}")
    if data.tokenizer_from and data.source_tokenizer_model:
        problems.append(
            "`data.tokenizer_from` and `data.source_tokenizer_model` cannot both say what the tokenizers are. "
            f"Received: {data.tokenizer_from!r} and {data.source_tokenizer_model!r}"
        )
    if bool(data.source_tokenizer_model) != bool(data.target_tokenizer_model):
        problems.append(
            "`data.source_tokenizer_model` and `data.target_tokenizer_model` must be given together; "
            "for a joint vocabulary give the same file twice"
        )
    return problems


def _decoding_problems(config: "ExperimentConfig") -> list[str]:
    problems: list[str] = []
    data, model, decoding = config.data, config.model, config.decoding
    if decoding.coverage_penalty and model.attention == "none":
        problems.append(
            "`decoding.coverage_penalty` sums attention weights: it needs `model.attention` other than none"
        )
    looks_back = decoding.no_repeat_ngram or decoding.repetition_penalty != 1.0 or decoding.banned_phrases
    if decoding.recombine and (looks_back or decoding.coverage_penalty):
        problems.append(
            "`decoding.recombine` forgets how hypotheses began: it does not go with `decoding.no_repeat_ngram`, "
            "`decoding.repetition_penalty`, `decoding.banned_phrases` or `decoding.coverage_penalty`. "
            f"Received: recombine={decoding.recombine}"
        )
    if decoding.protect and decoding.split_sentences:
        problems.append(
            "`decoding.protect` is of sentences, and does not go with `decoding.split_sentences`: give "
            "`--decoding.protect='()'`, and `--protect` to pipelines.translate or `protect` to the client. "
            f"Received: {list(decoding.protect)} and {decoding.split_sentences}"
        )
    if decoding.beam_groups > max(decoding.beam_size, 1):
        problems.append(
            "`decoding.beam_groups` must be at most `decoding.beam_size`. "
            f"Received: {decoding.beam_groups} and {decoding.beam_size}"
        )
    if decoding.beam_groups > 1 and decoding.recombine:
        problems.append(
            "`decoding.beam_groups` does not go with `decoding.recombine`: set one of them to its default. "
            f"Received: {decoding.beam_groups} and {decoding.recombine}"
        )
    if decoding.min_length > decoding.max_length:
        problems.append(
            "`decoding.min_length` must be at most `decoding.max_length`. "
            f"Received: {decoding.min_length} and {decoding.max_length}"
        )
    words = data.tokenizer == "word" and not data.source_tokenizer_model
    if decoding.replace_unknown and (not words or model.attention == "none"):
        problems.append(
            "`decoding.replace_unknown` puts the source word that attention reads in the place of an unknown one: it "
            "needs `data.tokenizer` word, and an attention. "
            f"Received: {data.tokenizer!r} and {model.attention!r}"
        )
    if decoding.batch_sentences > decoding.max_request_sentences:
        problems.append(
            "`decoding.batch_sentences` must be at most `decoding.max_request_sentences`: a server merges so many. "
            f"Received: {decoding.batch_sentences} and {decoding.max_request_sentences}"
        )
    least = 3 if data.train_languages else 2
    if decoding.max_source_length < least:
        problems.append(
            f"`decoding.max_source_length` must be at least {least}: EOS counts{', and a tag too' * (least > 2)}. "
            f"Received: {decoding.max_source_length}"
        )
    if "" in decoding.banned_phrases:
        problems.append("`decoding.banned_phrases` must not hold an empty text, which every translation contains")
    return problems


def _training_problems(config: "ExperimentConfig") -> list[str]:
    problems: list[str] = []
    data, model, training = config.data, config.model, config.training
    if (training.loss == "distillation") != bool(training.teacher):
        problems.append(
            "`training.teacher`, a run directory, belongs to `training.loss` distillation. "
            f"Received: {list(training.teacher)} and {training.loss!r}"
        )
    if training.loss == "guided_alignment" and not any(data.train_alignments):
        problems.append(
            "`training.loss` guided_alignment needs `data.train_alignments`, a file of word alignments for a corpus. "
            f"Received: {list(data.train_alignments)}"
        )
    if training.loss != "guided_alignment" and any(data.train_alignments):
        problems.append(
            "`data.train_alignments` are for `training.loss` guided_alignment: set it, or leave them out. Received: "
            f"{list(data.train_alignments)} and {training.loss!r}"
        )
    if training.loss == "guided_alignment" and model.attention == "none":
        problems.append(
            "`training.loss` guided_alignment teaches attention: it needs a `model.attention`. Received: "
            f"{model.attention!r}"
        )
    if training.weight_decay and model.freeze_vectors:
        problems.append("`training.weight_decay` must be 0 with `model.freeze_vectors`: it would shrink frozen vectors")
    if training.weight_decay and training.optimizer != "adamw":
        problems.append(
            "`training.weight_decay` needs `training.optimizer` adamw. "
            f"Received: {training.weight_decay!r} and {training.optimizer!r}"
        )
    if training.compile == "step" and not data.static_shapes:
        problems.append(
            "`training.compile` step compiles a program for each shape of a batch: it needs `data.static_shapes` True"
        )
    if training.distribution == "tpu" and not (data.static_shapes and training.compile in ("auto", "step")):
        problems.append(
            "`training.distribution` tpu runs the step as one program of static shapes: it needs `data.static_shapes` "
            f"True and `training.compile` auto or step. Received: {data.static_shapes} and {training.compile}"
        )
    if training.compile == "step" and training.distribution in ("mirrored", "multi_worker"):
        problems.append(
            "`training.compile` step makes one program of the step, which reductions between replicas divide: take "
            f"parts with `training.distribution` {training.distribution}"
        )
    if training.compile == "step" and training.loss == "minimum_risk":
        problems.append(
            "`training.loss` minimum_risk scores texts in Python, which XLA does not compile: `training.compile` must "
            "not be step"
        )
    if training.compile in ("parts", "step") and training.distribution == "parameter_server":
        problems.append(
            "`training.compile` must be auto or off with `training.distribution` parameter_server: XLA cannot update "
            f"what a server keeps. Received: {training.compile}"
        )
    if training.distribution == "local_sgd":
        problems += _local_sgd_problems(training)
    if not training.batch_tokens and not training.batch_sentences and training.distribution in OF_SEVERAL_WORKERS:
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


def training_doubts(training: TrainingConfig) -> list[str]:
    """What a training may have and hardly wants, a line each, with the remedy."""
    doubts = []
    rises = training.schedule in ("inverse_sqrt", "cosine")
    if rises and training.warmup_steps >= training.max_steps:
        doubts.append(
            f"the learning rate rises until step {training.warmup_steps:,} (training.warmup_steps), and training ends "
            f"at step {training.max_steps:,} (training.max_steps), so that nearly all of it has less than the rate "
            "that is asked for: give fewer warmup_steps, or more max_steps"
        )
    return doubts


def _local_sgd_problems(training: TrainingConfig) -> list[str]:
    """What else happens at a step must wait until the workers have one model."""
    intervals = ("log_every", "evaluate_every", "checkpoint_every", "max_steps")
    wrong = [name for name in intervals if getattr(training, name) % training.local_steps]
    if not wrong:
        return []
    values = ", ".join(f"training.{name}={getattr(training, name)}" for name in wrong)
    return [
        "`training.local_steps` must divide log_every, evaluate_every, checkpoint_every and max_steps, since workers "
        f"have one model only then. Received: {training.local_steps}, and {values}"
    ]
