"""The PyTorch file that is written computes what the model does, whatever its options, and reads as if by hand."""

import ast
import importlib.util
import json
import shlex
import subprocess
import sys

import black
import numpy as np
import pytest

from nmt_keras.conversion import pytorch as conversion
from nmt_keras.conversion import pytorch_proof, pytorch_session
from nmt_keras.conversion.source import DevLines, translated
from nmt_keras.errors import UserError
from nmt_keras.runs.tokenizers import load_tokenizers
from nmt_keras.tokenizers.base import Tokenizers
from nmt_keras.tokenizers.characters import CharacterTokenizer
from nmt_keras.tokenizers.target_tags import tag_ids
from pipelines import convert

TRANSFORMER = {
    "encoder": "transformer",
    "decoder": "transformer",
    "d_model": 16,
    "num_heads": 4,
    "d_ff": 24,
    "num_encoder_layers": 2,
    "num_decoder_layers": 1,
}
RECURRENT = {"encoder": "rnn", "decoder": "rnn", "d_model": 12, "num_encoder_layers": 1, "num_decoder_layers": 2}
# Every value of every option; attentions with each way of feeding that they have.
OPTIONS = [
    RECURRENT | {"cell": "lstm", "attention": "bahdanau", "bridge": "dense", "tie_output": True, "d_embedding": 5},
    RECURRENT
    | {"cell": "gru", "attention": "bahdanau", "input_feeding": True, "bridge": "copy", "bidirectional": False},
    RECURRENT | {"cell": "rnn", "attention": "bahdanau_normed", "bridge": "zeros", "share_embeddings": True},
    RECURRENT | {"cell": "lstm", "attention": "bahdanau_normed", "input_feeding": True, "residual": True},
    RECURRENT | {"cell": "gru", "attention": "luong_dot", "bridge": "dense", "residual": True, "num_encoder_layers": 3},
    RECURRENT | {"cell": "lstm", "attention": "luong_dot", "input_feeding": True, "bridge": "zeros"},
    RECURRENT
    | {"cell": "lstm", "attention": "luong_general", "bridge": "copy", "first_residual_layer": 2, "residual": True},
    RECURRENT | {"cell": "rnn", "attention": "luong_general", "input_feeding": True, "num_encoder_layers": 2},
    RECURRENT | {"cell": "gru", "attention": "luong_scaled", "share_embeddings": True, "tie_output": True},
    TRANSFORMER | {"positions": "sinusoidal", "pre_norm": True, "activation": "relu", "tie_output": True},
    TRANSFORMER | {"positions": "sinusoidal", "pre_norm": False, "activation": "gelu", "share_embeddings": True},
    TRANSFORMER | {"positions": "learned", "max_positions": 5, "pre_norm": False, "activation": "swiglu"},
    TRANSFORMER
    | {"positions": "learned", "max_positions": 5, "activation": "relu", "d_embedding": 6, "tie_output": True},
    TRANSFORMER | {"positions": "rotary", "pre_norm": True, "activation": "relu", "tie_output": True},
    TRANSFORMER | {"positions": "none", "pre_norm": True, "activation": "gelu", "d_embedding": 6},
    TRANSFORMER | {"positions": "none", "pre_norm": False, "activation": "swiglu", "share_embeddings": True},
]


def _name(options):
    return "-".join(f"{value}" for key, value in options.items() if key not in ("encoder", "d_model", "d_ff"))


@pytest.fixture
def in_this_process(monkeypatch):
    """The written file is run here: another process takes seconds to import PyTorch."""
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    monkeypatch.setattr(pytorch_proof, "_session", lambda *arguments, seconds: pytorch_session.main(*arguments))


@pytest.mark.parametrize("options", OPTIONS, ids=_name)
def test_the_file_computes_what_the_model_does(options, make_source, dev, tmp_path, in_this_process):
    source = make_source(**options)
    assert conversion.reasons_against(source.config, source.tokenizers) == []
    conversion.write(source, tmp_path, "a book")
    proof = pytorch_proof.prove(source, tmp_path, dev)
    assert proof["compared"] == proof["equal_greedy"] == len(dev[0].texts)
    assert proof["different"] == 0 and proof["largest_logit_difference"] <= 1e-4


@pytest.mark.parametrize("options", OPTIONS, ids=_name)
def test_the_file_is_formatted_and_has_what_it_uses_alone(options, make_source):
    source = make_source(**options)
    text = conversion.program(source, True, "a book")
    assert black.format_str(text, mode=black.Mode(line_length=120)) == text
    assert max(map(len, text.split("\n"))) <= 120
    tree = ast.parse(text)
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    imported, made = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
            made |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.partition(".")[0])
            made |= {alias.asname or alias.name for alias in node.names}
    assert imported <= {"torch", "safetensors", "sentencepiece", "json", "math", "pathlib", "sys"}
    made |= {node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    made |= {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if hasattr(target, "id")
    }
    assert made <= read
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assert {"Encoder", "Decoder", "Attention", "Model"} <= classes
    options_of_the_writer = set(conversion._options(source.config.model, True))
    assert not any(isinstance(node, ast.Name) and node.id in options_of_the_writer for node in ast.walk(tree))


def test_the_names_of_folders_and_lines_of_a_corpus_may_hold_anything(make_source):
    source = make_source(**OPTIONS[0])._replace(name='a"""\\b\\')
    example = "it\"s `ls` $(ls) 'x' \x00 \\"
    docstring = ast.get_docstring(ast.parse(conversion.program(source, True, example)))
    assert docstring.startswith('a"""\\b\\,')
    [command] = [line for line in docstring.split("\n") if "python model.py" in line]
    assert shlex.split(command) == ["python", "model.py", example.replace("\x00", "\ufffd")]


def test_the_proof_sees_another_weight(make_source, dev, tmp_path, in_this_process):
    source = make_source(**OPTIONS[0])
    conversion.write(source, tmp_path, "a book")
    kernel = source.model.decoder.combine.kernel
    kernel.assign(np.array(kernel) * 1.01)
    proof = pytorch_proof.prove(source, tmp_path, dev)
    kernel.assign(np.array(kernel) / 1.01)
    assert proof["different"] > 0 and proof["largest_logit_difference"] > 1e-4


def test_greedy_translations_may_part_only_where_logits_are_equal():
    logits = np.array([[0.0, 0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 1.0, 1.0001]])
    assert pytorch_proof._is_same([4, 3], [4, 3], logits)
    assert pytorch_proof._is_same([4, 4], [4, 3], logits)
    assert not pytorch_proof._is_same([4, 4], [3, 4], logits)


def test_a_file_that_does_not_run_says_why(tmp_path):
    (tmp_path / "model.py").write_text("raise SystemExit('broken')\n")
    with pytest.raises(UserError, match="PyTorch does not run the written file, see whether `import torch` works: "):
        pytorch_proof._session(str(tmp_path), "x.npz", str(tmp_path), "5", seconds=60.0)


def test_a_process_that_does_not_end_is_ended_and_a_line(tmp_path, monkeypatch):
    (tmp_path / "session.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(pytorch_proof.pytorch_session, "__file__", str(tmp_path / "session.py"))
    with pytest.raises(UserError, match="did not run the written file within 1 s: .*, as with --proof_lines=20"):
        pytorch_proof._session(seconds=1.0)


def test_the_program_translates_a_text(make_source, dev, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    source = make_source(**OPTIONS[9])
    conversion.write(source, tmp_path, dev[0].texts[0])
    assert f"python model.py '{dev[0].texts[0]}'" in (tmp_path / "model.py").read_text(encoding="utf-8")
    command = [sys.executable, "model.py", *dev[0].texts[0].split(" ")]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    [(_, hypothesis)] = translated(source, [DevLines([], dev[0].texts[:1])], 1)
    assert done.stdout == hypothesis.text + "\n"


def _written(folder):
    """The module that was written to a folder."""
    spec = importlib.util.spec_from_file_location("written", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lines_of_the_readme_translate_and_mistakes_are_a_line(make_source, dev, tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    source = make_source(**OPTIONS[1])
    texts = [dev[0].texts[0], "", dev[0].texts[2]]
    conversion.write(source, tmp_path, texts[0])
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    module = _written(tmp_path)
    monkeypatch.setitem(sys.modules, "model", module)
    lines = [line[4:] for line in readme.split("\n") if line.startswith("    ")][2:]
    assert len(lines) == 3 and "one sentence of at most 16 ids" in readme
    exec("\n".join(lines), {})  # pylint: disable=exec-used
    expected = [hypothesis.text for _, hypothesis in translated(source, [DevLines([], texts[::2])], 1)]
    assert capsys.readouterr().out == f"{[expected[0]]}\n"
    translator = module.Translator(str(tmp_path))
    assert translator(texts) == [expected[0], "", expected[1]] and translator([]) == []
    tensor, EOS = module.torch.tensor, module.EOS
    for call, message in (
        (lambda: translator("a book"), "give a list of texts, as in [text]. Received: 'a book'"),
        (lambda: translator(["a\nb"]), "a text is one sentence, and this has several lines: 'a\\nb'"),
        (lambda: translator(["a book " * 20]), "at most 16 are allowed: give its sentences"),
        (lambda: translator.model.translate(tensor([4, EOS])), "a source is ids [B, S], a sentence a row"),
        (lambda: translator.model.translate(tensor([[4, 99, EOS]])), "ids of a source are 0 to 37. Received: 3 to 99"),
        (lambda: translator.model.translate(tensor([[4, 5]])), "each row of a source ends with EOS, the id 3"),
        (lambda: translator.model.translate(tensor([[4, EOS]]), 1), "max_length counts EOS and is 2 at least"),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert message in str(caught.value) and "\n" not in str(caught.value)
    monkeypatch.setattr(sys, "argv", ["model.py", "a book " * 20])
    with pytest.raises(SystemExit, match="error: a source has .* ids with EOS, at most 16 are allowed"):
        module.main()


def test_without_sentencepiece_the_program_translates_ids_after_the_tag(make_source, dev, tmp_path, in_this_process):
    source = make_source(**OPTIONS[1])
    data = source.config.data
    data.target_language, data.train_languages = "fr", ("de", "fr")
    tags = tag_ids(data, source.tokenizers.source, ["de", "fr"])
    proof_lines = [DevLines([tag], dev[0].texts) for tag in tags]
    conversion.write(source, tmp_path, "a book")
    proof = pytorch_proof.prove(source, tmp_path, proof_lines)
    assert proof["compared"] == 2 * len(dev[0].texts) and proof["different"] == 0
    text = conversion.program(source, False, "a book")
    ids = " ".join(map(str, source.tokenizers.source.encode("a book")))
    assert f"TAGS = ({tags[1]},)" in text and f"    python model.py {ids}\n" in text and "sentencepiece" not in text
    assert f"the language to translate into: {tags[0]} <2de>, {tags[1]} <2fr>." in text
    assert black.format_str(text, mode=black.Mode(line_length=120)) == text


def test_other_tokenizers_leave_no_sentencepiece_models(make_source, dev, tmp_path):
    pytest.importorskip("safetensors")
    source = make_source(**OPTIONS[1])
    characters = CharacterTokenizer.train(dev[0].texts, source.tokenizers.source.vocab_size)
    source = source._replace(tokenizers=Tokenizers(characters, source.tokenizers.target))
    conversion.write(source, tmp_path, "a book")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["README.md", "model.py", "model.safetensors", "source_vocabulary.json", "target_vocabulary.json"]


@pytest.mark.parametrize(
    "fields, reasons",
    [
        ({"cell": "normed_lstm", "attention": "local_p"}, ["model.cell normed_lstm", "model.attention local_p"]),
        ({"encoder": "gnmt", "decoder": "conditional_gru"}, ["model.encoder gnmt with model.decoder conditional_gru"]),
        ({"encoder": "transformer"}, ["model.encoder transformer with model.decoder rnn"]),
        (TRANSFORMER | {"positions": "relative"}, ["model.positions relative"]),
        ({"attention": "none"}, ["model.attention none"]),
    ],
)
def test_what_has_no_file_is_named(fields, reasons, make_source):
    source = make_source(**OPTIONS[0])
    for name, value in fields.items():
        setattr(source.config.model, name, value)
    assert conversion.reasons_against(source.config, source.tokenizers) == reasons


def test_the_job_converts_a_recurrent_run(make_run, tmp_path, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    run_dir, output = make_run(OPTIONS[1]), tmp_path / "converted"
    assert convert.main([f"--run_dir={run_dir}", "--to=pytorch", f"--output={output}", "--proof_lines=6"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["compared"] == printed["equal_greedy"] == 5 and printed["different"] == 0
    assert sorted(path.name for path in output.iterdir()) == [
        "README.md",
        "conversion.json",
        "model.py",
        "model.safetensors",
        "source.model",
        "source_vocabulary.json",
        "target.model",
        "target_vocabulary.json",
    ]


def test_the_job_converts_a_trained_model_of_characters(trained_copy, tmp_path, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    output = tmp_path / "converted"
    assert convert.main([f"--run_dir={trained_copy}/run", "--to=pytorch", f"--output={output}"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["compared"] == printed["equal_greedy"] == 24 and printed["different"] == 0
    ids = list(map(str, load_tokenizers(trained_copy / "run").source.encode("a b c d")))
    done = subprocess.run([sys.executable, "model.py", *ids], cwd=output, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ids  # it has learned to copy


def test_the_file_of_a_transformer_goes_on_to_onnx(make_source, dev, tmp_path):
    """As docs/conversion.md says."""
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    source = make_source(**OPTIONS[9])
    conversion.write(source, tmp_path, "a book")
    program = (
        "import torch, model\n"
        "axes = {'source': {0: 'B', 1: 'S'}, 'target': {0: 'B', 1: 'T'}}\n"
        "ids = torch.tensor([[4, 5, 3]]), torch.tensor([[2, 4]])\n"
        "options = {'input_names': list(axes), 'dynamic_axes': axes, 'dynamo': False}\n"
        "torch.onnx.export(model.load(), ids, 'model.onnx', **options)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    ids = np.array([[6, 7, 8, 5, 3], [9, 4, 3, 0, 0]], np.int64)
    target = np.array([[2, 8, 9, 7], [2, 5, 6, 4]], np.int64)
    [logits] = session.run(None, {"source": ids, "target": target})
    hidden, _ = source.model(ids.astype(np.int32), target.astype(np.int32))
    np.testing.assert_allclose(logits, source.model.project(hidden), atol=1e-4)
