"""What tests share. Two logical CPU devices stand in for two accelerators; TensorFlow's remarks are silenced."""

import contextlib
import faulthandler
import fcntl
import gc
import io
import os
import pathlib
import random
import re
import shutil
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402
from _pytest.faulthandler import fault_handler_stderr_fd_key  # noqa: E402

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

gc.set_threshold(100_000, 20, 100)  # graphs are many objects that live: looking through them took 6% of the time

# Files whose tests take longest: they come first, so that parallel workers end together.
_LONGEST = (
    "test_jobs.py",
    "test_contracts.py",
    "test_trainer.py",
    "test_served.py",
    "test_translator.py",
    "test_faults.py",
    "test_shortlist.py",
    "test_signatures.py",
    "test_client.py",
)
_SHARED = {"test_contracts.py": 4}  # files whose tests several workers share, and in how many parts
_FIFTHS = 5


def pytest_addoption(parser):
    parser.addoption("--fifth", type=int, choices=range(_FIFTHS), help="Run this fifth of the tests, 0 to 4.")


def pytest_collection_modifyitems(config, items):
    """Chooses a fifth, leaves out what needs a GPU where there is none, and puts the longest first."""
    if not tf.config.list_physical_devices("GPU"):
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="there is no GPU"))
    fifth = config.getoption("--fifth")
    if fifth is not None:
        chosen = [_part(item.nodeid, _FIFTHS) == fifth for item in items]
        config.hook.pytest_deselected(items=[item for item, is_chosen in zip(items, chosen) if not is_chosen])
        items[:] = [item for item, is_chosen in zip(items, chosen) if is_chosen]
    place = {name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_xdist_make_scheduler(config, log):
    """One worker takes the tests of a file, whose fixtures they share, or of a part of a file."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.partition("::")[0]
            component = re.search(r"\[(.*?)\d*\]", nodeid)  # of a registry; its tests share a model
            parts = _SHARED.get(pathlib.PurePath(path).name, 1)
            return f"{path}:{_part(component[1], parts) if component else 0}"

    return Scheduling(config, log)


def _part(name, parts):
    return zlib.crc32(name.encode()) % parts


@pytest.fixture(autouse=True)
def _seeds_and_precision():
    """Initializers draw their seeds from Python's generator; a job under test may change the precision, which must be
    as before when the next test's module makes its fixtures."""
    import keras

    random.seed(1)
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def within_a_minute(request):
    """Ends the process of a test that takes longer, also where it waits in C++, with the stacks of all threads,
    and the run (see the Makefile)."""
    stderr = request.config.stash[fault_handler_stderr_fd_key]  # pytest's own, before it takes in what tests write
    faulthandler.dump_traceback_later(60, exit=True, file=stderr)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def varied_transformer():
    """A function that makes an untrained Transformer whose translations vary, and seldom end or hold UNK.

    It takes the size of both vocabularies, and what is added to the logit of EOS.
    """
    from nmt_keras.config import ModelConfig
    from nmt_keras.constants import EOS_ID, UNK_ID
    from nmt_keras.models.seq2seq import build_seq2seq

    def build(vocab_size: int, end: float):
        config = ModelConfig(encoder="transformer", decoder="transformer", d_model=16, num_heads=4, d_ff=24)
        model = build_seq2seq(config, vocab_size, vocab_size)
        rng = np.random.default_rng(3)
        for weight in model.trainable_variables:
            weight.assign(rng.normal(size=weight.shape) * 0.6)
        bias = tf.one_hot(EOS_ID, vocab_size) * end + tf.one_hot(UNK_ID, vocab_size) * -20.0
        model.output_projection.bias.assign(bias)
        return model

    return build


@pytest.fixture(scope="session")
def copy_text(tmp_path_factory):
    """Files of a copy task: {train,dev}.{src,tgt}, words of letters; returns their folder."""
    return write_copy_text(tmp_path_factory.mktemp("copy"))


def write_copy_text(folder):
    """Writes the files of a copy task to a folder."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    for name, count in (("train", 600), ("dev", 24)):
        lines = ["".join(" ".join(rng.choice(list("abcdefgh"), size=rng.integers(2, 7)))) for _ in range(count)]
        for side in ("src", "tgt"):
            (folder / f"{name}.{side}").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def trained_copy(tmp_path_factory):
    """The folder of a copy model that is trained once for all workers: its `run`, which keeps a moving average of its
    weights, and the `text` of its task. Take a copy of the run to change it."""
    from pipelines import train

    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "trained_copy"
    folder.mkdir(exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "run" / "run_card.json").exists():
            shutil.rmtree(folder / "run", ignore_errors=True)
            write_copy_text(folder / "text")
            recipe = pathlib.Path(__file__).parent / "pipelines" / "copy_recipe.py"
            options = [f"--data_dir={folder}/text", f"--config.data.cache_dir={folder}/cache"]
            arguments = [f"--config={recipe}", f"--run_dir={folder}/run"]
            assert train.main([*arguments, *options]) == 0
    return folder


@pytest.fixture(scope="session")
def exported_copy(trained_copy):
    """The folder of an export of the copy model, made once for all workers: the export, `copy`; a copy of what the job
    had saved `before` its proof; and the job's last line, `result.json`."""
    from nmt_keras.serving import export as exporting
    from pipelines import export

    folder, real, out = trained_copy / "exported", exporting.save, io.StringIO()

    def save(module, output):
        place = real(module, output)
        shutil.copytree(place, folder / "before")
        return place

    with open(trained_copy / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "result.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
                patch.setattr(exporting, "save", save)
                assert export.main([f"--run_dir={trained_copy}/run", f"--output={folder}/copy"]) == 0
            (folder / "result.json").write_text(out.getvalue().strip().split("\n")[-1], encoding="utf-8")
    return folder
