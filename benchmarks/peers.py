"""The toolkits that ours is measured against, each in a virtual environment of its own, at one shape on one text.

OpenNMT-tf 2.32 (TensorFlow 2.13), JoeyNMT 2.3 (PyTorch) and CTranslate2 4.8 on Multi30k en-de: 8,000 joint unigram
pieces, the networks of `peer_models/`, Adam, float32, which is what they train in on a CPU. Benchmarks call `set_up`
first.
"""

import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable
from typing import NamedTuple

from absl import flags

from benchmarks import measure
from benchmarks.measure import Finished, run_pinned
from nmt_keras.errors import UserError

_MODELS = pathlib.Path(__file__).parent / "peer_models"
_PACKAGES = {
    "opennmt": [["opennmt-tf==2.32.0", "tensorflow==2.13.*"]],
    "joeynmt": [["torch==2.13.0"], ["joeynmt==2.3.0", "importlib_metadata", "sentencepiece"]],
    "ctranslate2": [["ctranslate2==4.8.*", "numpy"]],
}
NAMES = {"opennmt": "OpenNMT-tf 2.32", "joeynmt": "JoeyNMT 2.3"}
_TEXT = r"""
import gzip, sys
import sentencepiece
data, work = sys.argv[1:]
def read(name):
    with gzip.open(f"{data}/{name}.gz", "rt", encoding="utf-8", newline="\n") as file:
        return file.read().split("\n")[:-1]
def write(name, lines):
    with open(f"{work}/{name}", "w", encoding="utf-8", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(read("train.en") + read("train.de")), model_prefix=f"{work}/pieces", vocab_size=8000,
    character_coverage=1.0, model_type="unigram", unk_id=0, bos_id=1, eos_id=2, pad_id=3, minloglevel=2)
processor = sentencepiece.SentencePieceProcessor(model_file=f"{work}/pieces.model")
for name in ("train.en", "train.de", "val.en", "val.de"):
    write(name, (" ".join(processor.encode(line, out_type=str)) for line in read(name)))
pieces = [processor.id_to_piece(i) for i in range(4, 8000)]
write("joeynmt.vocab", pieces)
write("opennmt.vocab", ["<blank>", "<s>", "</s>", *pieces])
"""
TEXTS = ("train.en", "train.de", "val.en", "val.de")
_REPEATS = 4
_COUNT = r"""
import math, sys
import tensorflow as tf
names = tf.train.list_variables(tf.train.latest_checkpoint(sys.argv[1]))
own = [shape for name, shape in names if name.startswith("model/") and "OPTIMIZER" not in name]
print(sum(math.prod(shape) for shape in own))
"""
_CTRANSLATE2 = r"""
import sys, time
import ctranslate2
folder, text, kind, threads, beam_size, length = sys.argv[1:]
lines = [line.split() for line in open(text, encoding="utf-8", newline="\n").read().split("\n")[:-1]]
translator = ctranslate2.Translator(folder, compute_type=kind, inter_threads=1, intra_threads=int(threads))
limits = dict(min_decoding_length=int(length), max_decoding_length=int(length))
options = dict(beam_size=int(beam_size), max_batch_size=64, **limits)
translator.translate_batch(lines[:64], **options)
started = time.perf_counter()
translator.translate_batch(lines, **options)
print(len(lines) / (time.perf_counter() - started))
"""


class Training(NamedTuple):
    """How a peer trained."""

    target_tokens_per_s: float
    weights: int
    peak_rss_mib: float


def define_flags(values: flags.FlagValues) -> None:
    """What benchmarks against the peers take."""
    measure.define_flags(values)
    flags.DEFINE_string("data_dir", None, "Folder of Multi30k.", flag_values=values)
    define_work(values)
    flags.DEFINE_string("only", "", "A regular expression: rows with such names, instead of all.", flag_values=values)
    flags.DEFINE_integer("rounds", 3, "How often each is measured, in turns.", 1, flag_values=values)


def define_work(values: flags.FlagValues) -> None:
    """Where `install` puts them."""
    flags.DEFINE_string(
        "work",
        "/tmp/peers",
        "Where the peers are installed, 3.6 GB from the package index, once, and what they train.",
        flag_values=values,
    )


def is_wanted(values: flags.FlagValues, name: str) -> bool:
    """Whether --only asks for a row."""
    return bool(re.search(values.only, name))


def set_up(values: flags.FlagValues) -> pathlib.Path:
    """Makes what is missing of --work: environments, from the package index by name, and the text for each peer.

    Raises:
        UserError: --data_dir was not given, or has no Multi30k, or --only is no regular expression.
    """
    try:
        re.compile(values.only)
    except re.error as error:
        raise UserError(f"--only must be a regular expression. Received: {values.only!r}: {error}") from error
    require_text(values.data_dir)
    work = install(values.work)
    if not (work / "opennmt.vocab").exists():
        write_text(values.data_dir, work, work)
    return work


def require_text(data_dir: str | None) -> None:
    """Checks that --data_dir is Multi30k.

    Raises:
        UserError: it was not given, or lacks a file.
    """
    if not data_dir:
        raise UserError("--data_dir must be given: the folder of Multi30k")
    missing = [n for n in TEXTS if not (pathlib.Path(data_dir) / f"{n}.gz").is_file()]
    if missing:
        raise UserError(f"--data_dir must be the folder of Multi30k; {data_dir} has no {missing[0]}.gz")


def install(folder: str, names: Iterable[str] = tuple(_PACKAGES)) -> pathlib.Path:
    """Makes those environments that the folder lacks, from the package index by name; returns the folder's path.

    Raises:
        UserError: one cannot be made.
    """
    work = pathlib.Path(folder).resolve()
    work.mkdir(parents=True, exist_ok=True)
    for name in names:
        ready = work / name / "ready"
        if ready.exists():
            continue
        try:
            subprocess.run([sys.executable, "-m", "venv", str(work / name)], check=True)
            for packages in _PACKAGES[name]:
                subprocess.run([str(work / name / "bin" / "pip"), "install", "--quiet", *packages], check=True)
        except subprocess.CalledProcessError as error:
            raise UserError(
                f"{name} could not be installed into {work / name}: what pip says is above; the command tries it again"
            ) from error
        ready.touch()
    return work


def write_text(data_dir: str, work: pathlib.Path, folder: pathlib.Path) -> None:
    """Learns the pieces and writes the text in them, and each peer's vocabulary, into a folder.

    Args:
        data_dir: Multi30k.
        work: of `install`; JoeyNMT's environment is used.
        folder: where to write.
    """
    run_pinned([python(work, "joeynmt"), "-c", _TEXT, str(pathlib.Path(data_dir).resolve()), str(folder)], 1)


def train(peer: str, model: str, work: pathlib.Path, threads: int, batch: int, batch_type: str, steps: int) -> Training:
    """Trains from the start; the speed is the median of what the peer prints every few steps, but for the first.

    Args:
        peer: opennmt or joeynmt.
        model: rnn or transformer.
        work: of `set_up`.
        threads: and cores.
        batch: sentences, or tokens.
        batch_type: `sentences` or `tokens`.
        steps: of which the first tenth or so is not counted.
    """
    log_every = max(steps // 5, 1)
    shutil.rmtree(work / f"{peer}_{model}", ignore_errors=True)
    if (peer, model) == ("opennmt", "transformer"):
        shutil.rmtree(work / "ctranslate2_model", ignore_errors=True)
    if peer == "opennmt":
        done = _opennmt(work, model, threads, ["train"], batch, batch_type, steps, log_every)
        speeds = re.findall(r"Step = \d+ .*?\(\d+ source, (\d+) target\)", done.output)
        counted = run_pinned([python(work, "opennmt"), "-c", _COUNT, str(work / f"opennmt_{model}")], threads)
        weights = int(counted.output.strip().split("\n")[-1])
    else:
        done = _joeynmt(work, model, threads, "train", batch, batch_type, steps, log_every)
        speeds = re.findall(r"Tokens per Sec:\s+(\d+)", done.output)
        weights = int(re.findall(r"Total params: (\d+)", done.output)[0])
    if len(speeds) < 2:
        raise UserError(f"{peer} printed no speed; read {measure.keep(done.output)}")
    return Training(statistics.median(map(int, speeds[1:])), weights, done.peak_rss_mib)


def translate(peer: str, model: str, work: pathlib.Path, threads: int, beam_size: int, length: int) -> dict:
    """`sentences_per_s` of the dev set, at a forced length in pieces, by the model of the last `train`.

    Warm: JoeyNMT translates it twice in a process, and the second time counts; OpenNMT-tf translates it once in a
    process and four times in another, and the difference counts.
    """
    if not (work / f"{peer}_{model}").exists():
        raise UserError(f"{peer} has no {model} in {work}: run benchmarks.training_speed --model={model} first")
    lines = (work / "val.en").read_bytes().split(b"\n")[:-1]
    if peer == "joeynmt":
        done = _joeynmt(work, model, threads, "test", beam_size=beam_size, length=length)
        return {"sentences_per_s": len(lines) / _seconds(done, r"Generation took ([\d.]+)\[sec\]")}
    (work / "repeated.en").write_bytes((work / "val.en").read_bytes() * _REPEATS)

    def seconds(text: str) -> float:
        files = ["--features_file", str(work / text), "--predictions_file", str(work / "opennmt.out")]
        command = ["infer", *files, "--log_prediction_time"]
        done = _opennmt(work, model, threads, command, beam_size=beam_size, length=length)
        return _seconds(done, r"Total prediction time \(s\): ([\d.]+)")

    return {"sentences_per_s": (_REPEATS - 1) * len(lines) / (seconds("repeated.en") - seconds("val.en"))}


def _seconds(done: Finished, pattern: str) -> float:
    found = re.findall(pattern, done.output)
    if not found:
        raise UserError(f"the peer printed no time; read {measure.keep(done.output)}")
    return float(found[-1])


def ctranslate2(work: pathlib.Path, kind: str, threads: int, beam_size: int, length: int) -> dict:
    """The same of CTranslate2, in `kind` (float32 or int8), with the Transformer that OpenNMT-tf trained last."""
    folder = work / "ctranslate2_model"
    if not folder.exists():
        export = ["export", "--output_dir", str(folder), "--format", "ctranslate2"]
        _opennmt(work, "transformer", threads, export)
    arguments = [str(folder), str(work / "val.en"), kind, str(threads), str(beam_size), str(length)]
    done = run_pinned([python(work, "ctranslate2"), "-c", _CTRANSLATE2, *arguments], threads)
    return {"sentences_per_s": float(done.output.strip().split("\n")[-1])}


def python(work: pathlib.Path, name: str) -> str:
    """The interpreter of an environment of `install`."""
    return str(work / name / "bin" / "python")


def _opennmt(
    work, model, threads, command, batch=64, batch_type="sentences", steps=1, log_every=1, beam_size=1, length=15
) -> Finished:
    kind = {"sentences": "examples", "tokens": "tokens"}[batch_type]
    config = f"""
model_dir: {work}/opennmt_{model}
data: {{train_features_file: {work}/train.en, train_labels_file: {work}/train.de, eval_features_file: {work}/val.en,
  eval_labels_file: {work}/val.de, source_vocabulary: {work}/opennmt.vocab, target_vocabulary: {work}/opennmt.vocab}}
params: {{optimizer: Adam, learning_rate: 0.001, beam_width: {beam_size}, minimum_decoding_length: {length},
  maximum_decoding_length: {length}}}
train: {{batch_size: {batch}, batch_type: {kind}, effective_batch_size: null, length_bucket_width: 5,
  maximum_features_length: 100, maximum_labels_length: 100, max_step: {steps}, save_summary_steps: {log_every},
  save_checkpoints_steps: 100000, sample_buffer_size: 29000}}
infer: {{batch_size: 64, batch_type: examples, length_bucket_width: 5}}
"""
    (work / "opennmt.yml").write_text(config, encoding="utf-8")
    program = [str(work / "opennmt" / "bin" / "onmt-main"), "--model", str(_MODELS / f"opennmt_{model}.py")]
    return run_pinned([*program, "--config", str(work / "opennmt.yml"), *command], threads)


def _joeynmt(
    work, model, threads, command, batch=64, batch_type="sentences", steps=1, log_every=1, beam_size=1, length=15
) -> Finished:
    template = (_MODELS / "joeynmt.yaml").read_text(encoding="utf-8")
    network = (_MODELS / f"joeynmt_{model}.yaml").read_text(encoding="utf-8")
    kind = {"sentences": "sentence", "tokens": "token"}[batch_type]
    options = {"work": work, "model": model, "batch": batch, "batch_type": kind, "steps": steps}
    options |= {"log_every": log_every, "beam_size": beam_size, "length": length, "network": network}
    (work / "joeynmt.yaml").write_text(template.format(**options), encoding="utf-8")
    skip = ["--skip-test"] if command == "train" else []
    program = [python(work, "joeynmt"), "-m", "joeynmt", command, str(work / "joeynmt.yaml"), *skip]
    return run_pinned(program, threads, {"PATH": os.environ["PATH"]})
