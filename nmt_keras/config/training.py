"""The section `training` of an experiment."""

from dataclasses import dataclass

from nmt_keras.config.fields import ALLOWED, FREE, spec

_SHARE = ("must be from 0 to 1", lambda value: 0.0 <= value <= 1.0)


@dataclass
class TrainingConfig:
    """The training loop. Intervals are in steps; a step consumes one global batch."""

    init_from: str = spec("", 'a run directory whose weights training begins with; "" draws them')
    init_checkpoint: str = spec("best", "best, latest, averaged, ema or a step of it")
    freeze: str = spec("", "regular expression of the whole paths of weights that stay as they are, such as encoder/.*")
    max_steps: int = spec(10_000, "steps of the whole training", positive=True, resume=FREE)
    batch_tokens: int = spec(
        4096,
        "padded target positions of a global batch, that is of one update; 0 finds what fits",
        not_negative=True,
        resume=ALLOWED,
    )
    batch_sentences: int = spec(
        0, "if positive: a batch is so many sentences instead", not_negative=True, resume=ALLOWED
    )
    accumulation_steps: int = spec(1, "parts that each replica's batch is computed in", positive=True, resume=ALLOWED)
    optimizer: str = spec("adam", "the optimizer", choices=("adam", "adamw", "sgd"))
    learning_rate: float = spec(1e-3, "the peak, where the schedule has one", positive=True, resume=ALLOWED)
    schedule: str = spec(
        "inverse_sqrt",
        "the learning rate over the steps",
        choices=("constant", "inverse_sqrt", "cosine", "luong_halving"),
        resume=ALLOWED,
    )
    warmup_steps: int = spec(400, "steps that the learning rate rises for", not_negative=True, resume=ALLOWED)
    weight_decay: float = spec(0.0, "of adamw", not_negative=True, resume=ALLOWED)
    adam_beta1: float = spec(0.9, "of adam and adamw: momentum", rate=True, resume=ALLOWED)
    adam_beta2: float = spec(0.999, "of adam and adamw", rate=True, resume=ALLOWED)
    adam_epsilon: float = spec(1e-8, "of adam and adamw", positive=True, resume=ALLOWED)
    clip_norm: float = spec(1.0, "largest norm of the gradient; 0 is off", not_negative=True, resume=ALLOWED)
    loss: str = spec("cross_entropy", "what is minimised: a name of LOSSES in nmt_keras/training/losses")
    label_smoothing: float = spec(0.1, "mass of the label that all ids share", rate=True, resume=ALLOWED)
    r_drop_alpha: float = spec(
        5.0, "of the loss r_drop: weight of the divergence of two passes", not_negative=True, resume=ALLOWED
    )
    teacher: tuple[str, ...] = spec(
        (), "of the loss distillation: a run directory, several are an ensemble", resume=ALLOWED
    )
    teacher_checkpoint: str = spec("best", "best, latest, averaged, ema or a step of it", resume=ALLOWED)
    distillation_weight: float = spec(0.5, "of the teacher, 0 to 1; the text has the rest", rule=_SHARE, resume=ALLOWED)
    distillation_temperature: float = spec(
        1.0, "of both distributions (Hinton et al. 2015)", positive=True, resume=ALLOWED
    )
    alignment_weight: float = spec(
        0.05,
        "of the loss guided_alignment: weight of the cross entropy of attention",
        not_negative=True,
        resume=ALLOWED,
    )
    num_risk_candidates: int = spec(
        8,
        "of the loss minimum_risk: translations of each sentence",
        rule=("must be at least 2", lambda value: value >= 2),
        resume=ALLOWED,
    )
    risk_candidates: str = spec("sample", "how they are found", choices=("sample", "beam"), resume=ALLOWED)
    risk_error: str = spec(
        "bleu", "1 minus this score of a sentence, of sacreBLEU, is the error", choices=("bleu", "chrf"), resume=ALLOWED
    )
    risk_sharpness: float = spec(
        0.005, "alpha of the distribution P^alpha over the candidates (Shen et al. 2016)", positive=True, resume=ALLOWED
    )
    risk_weight: float = spec(
        1.0, "of the risk, 0 to 1; the cross entropy of the text has the rest", rule=_SHARE, resume=ALLOWED
    )
    ema_decay: float = spec(
        0.0, "of the moving average of weights that --checkpoint=ema is, such as 0.999; 0 keeps none", rate=True
    )
    precision: str = spec(
        "float32",
        "auto is mixed_bfloat16 where the machine is fast at it; config.json says what it was",
        choices=("float32", "mixed_bfloat16", "mixed_float16", "auto"),
        resume=ALLOWED,
    )
    compile: str = spec(
        "auto",
        "what XLA compiles: the whole step, for which shapes are static; element-wise parts of it; or nothing. auto is "
        "parts, step with tpu, or off with parameter_server; config.json says what it was",
        choices=("auto", "step", "parts", "off"),
        resume=ALLOWED,
    )
    distribution: str = spec(
        "one_device",
        "mirrored is all GPUs of this machine; multi_worker the cluster of TF_CONFIG, which makes each step together; "
        "local_sgd the same, where each worker makes steps of its own and all take the mean now and then; "
        "parameter_server a cluster whose workers update weights that servers keep, without waiting for each other; "
        "tpu one chip (never run)",
        choices=("one_device", "mirrored", "multi_worker", "local_sgd", "parameter_server", "tpu"),
        resume=ALLOWED,
    )
    local_steps: int = spec(
        50, "of local_sgd: steps that each worker makes between two means", positive=True, resume=ALLOWED
    )
    outer_learning_rate: float = spec(
        1.0,
        "of local_sgd: of the step to the mean of what the workers learned; 1 goes there",
        positive=True,
        resume=ALLOWED,
    )
    outer_momentum: float = spec(0.0, "of local_sgd: Nesterov momentum of these steps", rate=True)
    max_in_flight: int = spec(
        0,
        "of parameter_server: steps M that are under way at once, so that at most 2 (M - 1) updates come between the "
        "weights of a gradient and its own; 0 is two for each worker",
        not_negative=True,
        resume=FREE,
    )
    reduction_dtype: str = spec(
        "float32",
        "what gradients are sent as between replicas and workers; bfloat16 is half as much",
        choices=("float32", "bfloat16"),
        resume=ALLOWED,
    )
    worker_timeout: float = spec(
        600.0, "seconds that a worker of several waits for the others to come", positive=True, resume=FREE
    )
    watch_port: int = spec(
        0,
        "port of the chief on which workers watch each other; 0 is one that the system chooses",
        rule=("must be 0 to 65535", lambda value: 0 <= value < 1 << 16),
        resume=FREE,
    )
    deterministic: bool = spec(
        False, "the same bits from the same seed on a GPU too, at some cost; a CPU gives them anyway", resume=ALLOWED
    )
    max_bad_steps: int = spec(
        5,
        "steps in a row that are not finite before training restarts from the checkpoint before them",
        positive=True,
        resume=FREE,
    )
    seed: int = spec(
        1,
        "of weights, dropout and the order of the text",
        rule=("must be at least 0 and below 2**31", lambda value: 0 <= value < 2**31),
        resume=ALLOWED,
    )
    log_every: int = spec(50, "steps between rows of the log", positive=True, resume=FREE)
    evaluate_every: int = spec(500, "steps between evaluations on the dev set", positive=True, resume=FREE)
    histograms_every: int = spec(
        5,
        "evaluations between histograms in TensorBoard, of weights, Adam's mean of their gradients, and its norms by "
        "layer; 0: none",
        not_negative=True,
        resume=FREE,
    )
    checkpoint_every: int = spec(500, "steps between checkpoints", positive=True, resume=FREE)
    keep_checkpoints: int = spec(3, "checkpoints that are kept beside the best", positive=True, resume=FREE)
    best_metric: str = spec(
        "dev_bleu", "what the best checkpoint is best at", choices=("dev_bleu", "dev_loss"), resume=ALLOWED
    )
    patience: int = spec(
        0, "evaluations without a better best_metric before training stops; 0 is never", not_negative=True, resume=FREE
    )
    dev_sentences: int = spec(
        0, "dev sentences that are translated for dev BLEU; 0 is all", not_negative=True, resume=ALLOWED
    )
    dev_beam_size: int = spec(1, "beams of that search", positive=True, resume=ALLOWED)
