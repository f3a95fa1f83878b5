"""Exports from end to end on a copy task: every precision, ensembles, averages, servers, scores and vectors."""

import contextlib
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from nmt_keras.experiment.export import export as export_run
from nmt_keras.runs.loading import load
from nmt_keras.serving.local import load_export
from nmt_keras.serving.local_server import serving
from pipelines import encode, evaluate, export, score, translate
from tests.serving.serving_double import Double

RECIPE = "--config=" + str(pathlib.Path(__file__).parent / "copy_recipe.py")
LINES = "a b c\n\nh g\n\U0001f600 a\n"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, trained_copy):
    """A trained copy model that keeps a moving average of its weights."""
    return pathlib.Path(shutil.copytree(trained_copy / "run", tmp_path_factory.mktemp("served") / "run"))


@pytest.fixture(scope="module")
def saved_model(exported_copy):
    """An export of it, with the job's result."""
    return exported_copy / "copy" / "1", json.loads((exported_copy / "result.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def averaged(run_dir, tmp_path_factory):
    """The result of exporting its moving average."""
    return export_run([run_dir], "ema", tmp_path_factory.mktemp("saved") / "copy")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "in"
    path.write_text(LINES, encoding="utf-8")
    return path


def _out(capsys):
    return capsys.readouterr().out.split("\n")[:-1]


def _error(capsys):
    lines = [line for line in capsys.readouterr().err.split("\n") if line]
    assert lines[-1].startswith("error: ") and not any("Traceback" in line for line in lines)
    return lines[-1]


@pytest.mark.slow
def test_a_moving_average_is_other_weights_that_translate_too(run_dir, copy_text, averaged, capsys):
    latest, ema = (load(run_dir, checkpoint=which).model.variables for which in ("latest", "ema"))
    distances = [np.abs(np.array(a) - np.array(b)).max() for a, b in zip(latest, ema)]
    assert 0.0 < max(distances) < 0.5
    pair = [f"--source={copy_text}/dev.src", f"--reference={copy_text}/dev.tgt"]
    assert evaluate.main([f"--run_dir={run_dir}", *pair, "--checkpoint=ema"]) == 0
    assert json.loads(_out(capsys)[-1])["bleu"] > 95
    assert averaged["checkpoint"] == "ema" and averaged["different"] == 0


@pytest.mark.slow
def test_an_ensemble_of_one_run_twice_is_that_run(run_dir, copy_text, tmp_path, capsys):
    pair = [f"--source={copy_text}/dev.src", f"--reference={copy_text}/dev.tgt"]
    results = []
    for name, run_dirs in (("one", run_dir), ("two", f"{run_dir},{run_dir}")):
        assert evaluate.main([f"--run_dir={run_dirs}", *pair, f"--translations={tmp_path}/{name}"]) == 0
        results.append(json.loads(_out(capsys)[-1]))
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text()
    assert results[0]["perplexity"] == pytest.approx(results[1]["perplexity"], rel=1e-5)
    assert export.main([f"--run_dir={run_dir},{run_dir}", f"--output={tmp_path}/saved"]) == 0
    assert json.loads(_out(capsys)[-1])["different"] == 0
    assert "an ensemble of 2 models" in (tmp_path / "saved" / "1" / "model_card.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("precision", (pytest.param("bfloat16", marks=pytest.mark.slow), "int8", "int8_compute"))
def test_an_export_of_fewer_bytes_is_the_model_of_its_weights(run_dir, precision, averaged, tmp_path, capsys):
    arguments = [f"--run_dir={run_dir}", f"--output={tmp_path}/saved", f"--precision={precision}", "--checkpoint=ema"]
    assert export.main(arguments) == 0
    result, whole = json.loads(_out(capsys)[-1]), averaged
    assert result["different"] == 0 and result["dev_bleu"] > 95 and result["precision"] == precision
    assert result["dev_bleu_float32"] == whole["dev_bleu"]
    sizes = [
        (pathlib.Path(each["saved_model"]) / "variables" / "variables.data-00000-of-00001").stat().st_size
        for each in (result, whole)
    ]
    assert sizes[0] < sizes[1] * {"bfloat16": 0.6}.get(precision, 0.4)
    card = (tmp_path / "saved" / "1" / "model_card.md").read_text()
    assert f"weights in {precision}" in card and ("| rows | kernel |" in card) == (precision == "int8_compute")


@pytest.mark.slow
def test_a_server_is_warmed_up_by_every_signature(saved_model):
    path = saved_model[0] / "assets.extra" / "tf_serving_warmup_requests"
    logs = [prediction_log_pb2.PredictionLog.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(path))]
    requests = [log.predict_log.request for log in logs]
    assert {request.model_spec.name for request in requests} == {"copy"}
    assert {r.model_spec.signature_name for r in requests} == {
        "serving_default",
        "translate",
        "score",
        "encode",
        "limits",
    }
    transport = load_export(saved_model[0])._transport
    for request in requests:
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        inputs = {n: v if v.dtype != object else np.array([t.decode() for t in v], object) for n, v in inputs.items()}
        outputs = transport.predict(request.model_spec.signature_name, inputs)
        assert {len(value) for value in outputs.values()} == {len(next(iter(inputs.values())))}


@contextlib.contextmanager
def _model(kind, folder):
    """The flag that names an export, in this process or behind a server."""
    if kind == "saved_model":
        yield f"--saved_model={folder}"
        return
    with serving(Double(folder, "copy")) as ports:
        yield f"--server={'grpc' if kind == 'grpc' else 'http'}://127.0.0.1:{getattr(ports, kind)}/copy"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("saved_model", "rest", "grpc"))
def test_an_export_says_what_the_run_says(kind, run_dir, saved_model, text, tmp_path, capsys):
    ours = [f"--run_dir={run_dir}", f"--input={text}"]
    searches = [[], ["--beam_size=3", "--n_best=2", "--scores", "--alignments", "--decoding.max_length=3"]]
    with _model(kind, saved_model[0]) as theirs:
        for options in searches:
            assert translate.main([*ours, *options]) == 0
            expected = _out(capsys)
            assert translate.main([theirs, f"--input={text}", *options]) == 0
            found = _out(capsys)
            if not options:
                assert found == expected
                continue
            for row, own in zip(map(json.loads, found), map(json.loads, expected), strict=True):
                assert row["source_pieces"] == own["source_pieces"] and row["line"] == own["line"]
                for hypothesis, same in zip(row["hypotheses"], own["hypotheses"], strict=True):
                    assert hypothesis["text"] == same["text"] and hypothesis["alignment"] == same["alignment"]
                    assert hypothesis["log_prob"] == pytest.approx(same["log_prob"], abs=1e-4)
                    assert hypothesis["token_log_probs"] == pytest.approx(same["token_log_probs"], abs=1e-4)
        assert translate.main([theirs, f"--input={text}", "--samples=2", "--seed=5", f"--output={tmp_path}/out"]) == 0
        rows = [json.loads(line) for line in (tmp_path / "out").read_text(encoding="utf-8").split("\n")[:-1]]
        assert [len(row["hypotheses"]) for row in rows] == [2, 1, 2, 2]


@pytest.mark.slow
def test_pairs_are_scored_and_sentences_encoded_alike_everywhere(run_dir, saved_model, text, tmp_path, capsys):
    with _model("rest", saved_model[0]) as server:
        scored, vectors = [], []
        for number, model in enumerate(([f"--run_dir={run_dir}"], [server])):
            arguments = [*model, f"--source={text}", f"--target={text}", "--pieces"]
            assert score.main(arguments) == 0
            captured = capsys.readouterr()
            scored.append([json.loads(line) for line in captured.out.split("\n")[:-1]])
            assert "4 pairs, log probability -" in captured.err and "perplexity" in captured.err
            assert encode.main([*model, f"--input={text}", f"--output={tmp_path}/{number}.npy"]) == 0
            vectors.append(np.load(tmp_path / f"{number}.npy"))
    for row, same in zip(*scored, strict=True):
        assert row["log_prob"] == pytest.approx(same["log_prob"], abs=1e-4) and row["pieces"] == same["pieces"]
        assert sum(row["token_log_probs"]) == pytest.approx(row["log_prob"], abs=1e-4)
    assert scored[0][0]["log_prob"] / scored[0][0]["num_pieces"] > -0.5  # it learned to copy
    assert vectors[0].shape == (4, 48) and vectors[0].dtype == np.float32
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)


def test_a_line_may_be_a_paragraph(run_dir, tmp_path, capsys):
    (tmp_path / "in").write_text("a b! C a? H g\n" + "h g " * 30 + "\n", encoding="utf-8")
    arguments = [f"--run_dir={run_dir}", f"--input={tmp_path}/in"]
    assert translate.main([*arguments, "--split_sentences"]) == 0
    captured = capsys.readouterr()
    first, second = captured.out.split("\n")[:2]
    assert "limit" not in captured.err and len(second) > 2 * 32  # all of it
    assert len(first.split()) >= 4
    assert translate.main([*arguments, "--split_sentences", "--scores"]) == 2
    assert "--split_sentences gives one text for a line" in _error(capsys)


BAD = [
    (translate, ["--saved_model={saved}", "--checkpoint=latest"], "--checkpoint goes with --run_dir: an export keeps"),
    (translate, ["--saved_model={saved}", "--decoding.min_length=2"], "--decoding.min_length goes with --run_dir"),
    (translate, ["--saved_model={saved}", "--n_best=2"], "--n_best with an export needs --beam_size"),
    (translate, ["--saved_model={saved}", "--timeout=2"], "--timeout is of requests: it goes with --server"),
    (
        translate,
        ["--saved_model={saved}", "--server=http://a:1/b"],
        "be given: --saved_model and --server are; leave one out",
    ),
    (translate, ["--server=grpc://localhost:99999/m"], "is 99999: give one from 1 to 65535"),
    (translate, ["--server=localhost:8500"], "The server 'localhost:8500' must be grpc://host:port/model"),
    (score, ["--saved_model={saved}", "--source={tmp}/one"], "--source and --target must be given"),
    (
        score,
        ["--saved_model={saved}", "--source={tmp}/one", "--target={tmp}/two"],
        "must be aligned line by line: .*one has 1 lines",
    ),
    (score, ["--saved_model={saved}", "--source={tmp}/one", "--target={tmp}/no"], "Cannot read .*no: No such file"),
    (
        score,
        ["--saved_model={saved}", "--beam_size=2", "--source=a", "--target=b"],
        "Unknown command line flag --beam_size",
    ),
    (encode, ["--saved_model={saved}", "--input={tmp}/one"], "--output must be given"),
    (encode, ["--saved_model={saved}", "--input={tmp}/one", "--output={tmp}"], "it is a directory"),
    (encode, ["--input={tmp}/one", "--output={tmp}/x.npy"], "Exactly one of --run_dir, --saved_model and --server"),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_a_mistake_is_one_line(case, saved_model, tmp_path, capsys):
    job, arguments, message = BAD[case]
    (tmp_path / "one").write_text("a\n")
    (tmp_path / "two").write_text("a\nb\n")
    assert job.main([argument.format(saved=saved_model[0], tmp=tmp_path) for argument in arguments]) == 2
    error = _error(capsys)
    assert re.search(message, error), error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.slow
def test_what_a_server_that_goes_down_leaves_is_gone_on_with(saved_model, tmp_path, capsys):
    lines = ["a b", "h g", "c", "d d", "e f", "b"]
    (tmp_path / "in").write_text("".join(line + "\n" for line in lines))
    arguments = [f"--input={tmp_path}/in", f"--output={tmp_path}/out", "--batch_sentences=1", "--concurrency=1"]
    double = Double(saved_model[0], "copy")
    answer = double.predict

    def answer_three(signature, inputs):
        if len(double.batches) == 3:
            double.model = "another"
        double.find("copy", None)
        return answer(signature, inputs)

    with serving(double) as ports:
        server = f"--server=http://127.0.0.1:{ports.rest}/copy"
        double.predict = answer_three
        assert translate.main([server, *arguments]) == 2
        error = _error(capsys)
        assert "is not loaded" in error and "the same command with --resume goes on after line 3" in error
        assert (tmp_path / "out.partial").read_text().count("\n") == 3
        double.predict, double.model = answer, "copy"
        assert translate.main([server, *arguments, "--resume"]) == 0
    assert translate.main([f"--saved_model={saved_model[0]}", f"--input={tmp_path}/in"]) == 0
    assert _out(capsys) == (tmp_path / "out").read_text().split("\n")[:-1]


def test_fewer_beams_and_fewer_translations_than_asked_for_are_told_once(saved_model, text, capsys):
    arguments = [f"--saved_model={saved_model[0]}", f"--input={text}"]
    assert translate.main([*arguments, "--n_best=17", "--beam_size=17"]) == 0  # decoding.max_beam_size is 16
    warnings = [line for line in capsys.readouterr().err.split("\n") if line.startswith("warning")]
    assert len(warnings) == 2 and "warning: line 1 has 16 of 17 translations: the export's limit" in warnings[1]
    assert warnings[1].endswith("or all that its search found; other lines like it are not named")
    assert warnings[0] == (
        "warning: --beam_size=17 is cut to 16, the most that this export was made with; "
        "export the run with --decoding.max_beam_size=17"
    )
    assert translate.main([*arguments, "--samples=20", "--temperature=1"]) == 0
    assert "warning: --samples=20 is cut to 16, the most" in capsys.readouterr().err
    assert translate.main([*arguments, "--beam_size=16"]) == 0
    assert "is cut" not in capsys.readouterr().err


@pytest.mark.slow
def test_samples_of_an_export_differ_from_line_to_line_and_repeat(saved_model, tmp_path, capsys):
    (tmp_path / "in").write_text("h g b a\n" * 8)
    runs = []
    for seed in (1, 1, 2):
        arguments = [f"--saved_model={saved_model[0]}", f"--input={tmp_path}/in", f"--seed={seed}"]
        assert translate.main([*arguments, "--samples=1", "--temperature=8"]) == 0
        runs.append(_out(capsys))
    assert runs[0] == runs[1] != runs[2] and len(set(runs[0])) > 4


@pytest.mark.slow
def test_an_export_that_splits_gives_best_translations_alone(run_dir, tmp_path, capsys):
    options = ["--decoding.split_sentences", "--decoding.max_source_length=8"]
    assert export.main([f"--run_dir={run_dir}", f"--output={tmp_path}/saved", *options]) == 0
    assert json.loads(_out(capsys)[-1])["different"] == 0
    (tmp_path / "in").write_text("a b c d e f g h a b c d e f g h\n")
    arguments = [f"--saved_model={tmp_path}/saved", f"--input={tmp_path}/in"]
    assert translate.main(arguments) == 0
    captured = capsys.readouterr()
    assert len(captured.out) > 16 and "limit" not in captured.err
    assert translate.main([*arguments, "--scores"]) == 2
    assert "has no signature 'translate'" in _error(capsys)
    (tmp_path / "in").write_text("A b. <b>C d. E</b> f g h a b c d e f g h\n")
    assert translate.main([*arguments, "--protect=tag"]) == 0
    captured = capsys.readouterr()
    assert captured.out.index("<b>") < captured.out.index("</b>") and len(captured.out) > 16


@pytest.mark.slow
def test_an_export_protects_what_its_run_does_unless_nothing_is_asked_for(run_dir, tmp_path, capsys):
    given = [f"--run_dir={run_dir}", f"--output={tmp_path}/saved"]
    assert export.main([*given, "--decoding.protect=('tags',)"]) == 2
    assert "'tags' is no name of a pattern" in _error(capsys) and not list(tmp_path.glob("saved/1"))
    assert export.main([*given, "--decoding.protect=('tag',)"]) == 0
    assert "takes out of a text what `tag` finds" in (tmp_path / "saved" / "1" / "model_card.md").read_text()
    (tmp_path / "in").write_text("a <b>b c</b>\n")
    (tmp_path / "begun").write_text("a\n")
    arguments = [f"--saved_model={tmp_path}/saved", f"--input={tmp_path}/in"]
    begun = [*arguments, f"--prefixes={tmp_path}/begun"]
    capsys.readouterr()
    for more, is_protected in ((arguments, True), ([*arguments, "--protect="], False), ([*begun, "--protect="], False)):
        assert translate.main(more) == 0
        assert ("<b>" in capsys.readouterr().out) == is_protected
    assert translate.main(begun) == 0
    found = capsys.readouterr().out
    assert found.startswith("a") and found.count("<b>") == found.count("</b>") == 1


def test_an_export_that_cannot_be_written_leaves_nothing(run_dir, tmp_path, monkeypatch, capsys):
    def full(module, folder, signatures):
        (pathlib.Path(folder) / "saved_model.pb").write_text("half")
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full)
    assert export.main([f"--run_dir={run_dir}", f"--output={tmp_path}/saved"]) == 2
    assert "Cannot write the export to" in _error(capsys) and not list(tmp_path.iterdir())
