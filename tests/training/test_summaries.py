"""What a run writes about itself, read back."""

import dataclasses
import json
import time

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.plugins.projector import ProjectorConfig

from nmt_keras.config import DataConfig, ExperimentConfig, ModelConfig, TrainingConfig
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.training import summaries as module
from nmt_keras.training.summaries import Summaries, attention_picture, font_note, heads_picture

T, S = 3, 5


def _rows(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]


def test_each_row_of_metrics_is_one_json_object_with_its_step(tmp_path):
    summaries = Summaries(tmp_path)
    summaries.scalars(50, {"loss": 2.5, "learning_rate": 0.001})
    summaries.scalars(100, {"dev_loss": 2.25, "dev_bleu": 12.5})
    assert _rows(tmp_path) == [
        {"step": 50, "loss": 2.5, "learning_rate": 0.001},
        {"step": 100, "dev_loss": 2.25, "dev_bleu": 12.5},
    ]


def test_resuming_drops_the_rows_that_come_again(tmp_path):
    before = Summaries(tmp_path)
    for step in (50, 100, 150, 200):
        before.scalars(step, {"loss": float(step)})
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 250, "lo')  # a killed job's last row
    after = Summaries(tmp_path, first_step=100)
    assert [row["step"] for row in _rows(tmp_path)] == [50, 100]
    after.scalars(150, {"loss": 1.0})
    assert _rows(tmp_path)[-1] == {"step": 150, "loss": 1.0}


def test_tensorboard_forgets_what_comes_again(tmp_path):
    before = Summaries(tmp_path)
    for step in (50, 100, 150, 200):
        before.scalars(step, {"loss": float(step)})
    time.sleep(1.1)  # TensorBoard reads files by the second of their making
    after = Summaries(tmp_path, first_step=100)
    for step in (150, 200, 250):
        after.scalars(step, {"loss": -float(step)})
    events = plugin_event_accumulator.EventAccumulator(str(tmp_path / "summaries"))
    events.Reload()
    points = [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors("train/loss")]
    assert points == [(50, 50.0), (100, 100.0), (150, -150.0), (200, -200.0), (250, -250.0)]


def test_a_damaged_row_is_dropped(tmp_path):
    Summaries(tmp_path).scalars(50, {"loss": 1.0})
    text = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text("{broken\n[]\n" + text)
    Summaries(tmp_path, first_step=100)
    assert [row["step"] for row in _rows(tmp_path)] == [50]


def test_starting_from_nothing_drops_all_rows(tmp_path):
    Summaries(tmp_path).scalars(50, {"loss": 1.0})
    Summaries(tmp_path, first_step=0)
    assert _rows(tmp_path) == []


def test_runs_can_be_compared_and_the_first_look_is_laid_out(tmp_path):
    config = ExperimentConfig(
        DataConfig("en", "de", train_source=("a",), train_target=("b",)), training=TrainingConfig(learning_rate=2e-3)
    )
    summaries = Summaries(tmp_path)
    summaries.run(config, "mine")
    summaries.scalars(50, {"dev_bleu": 12.5})
    events = EventAccumulator(str(tmp_path / "summaries"))
    events.Reload()
    start = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    values = plugin_data_pb2.HParamsPluginData.FromString(start).session_start_info.hparams
    assert values["training.learning_rate"].number_value == 2e-3 and values["model.encoder"].string_value == "rnn"
    assert "data.train_source" not in values and "model.cell" not in values and values["model.d_model"].number_value
    experiment = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    metrics = plugin_data_pb2.HParamsPluginData.FromString(experiment).experiment.metric_infos
    assert "dev/bleu" in [metric.name.tag for metric in metrics]
    [layout] = events.Tensors("custom_scalars__config__")
    charts = layout_pb2.Layout.FromString(tf.make_ndarray(layout.tensor_proto).item()).category[0].chart
    assert ["dev/bleu.*"] in [list(chart.multiline.tag) for chart in charts]


def test_embeddings_have_their_pieces_as_labels(tmp_path):
    vectors = np.arange(6, dtype=np.float64).reshape(3, 2)
    Summaries(tmp_path).embeddings({"source_embedding": (vectors, ["<pad>", "a\tb", ""])})
    folder = tmp_path / "summaries"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    [embedding] = config.embeddings
    assert list(embedding.tensor_shape) == [3, 2] and (folder / embedding.metadata_path).read_text().count("\n") == 3
    read = np.frombuffer((folder / embedding.tensor_path).read_bytes(), np.float32).reshape(3, 2)
    np.testing.assert_array_equal(read, vectors)
    assert (folder / embedding.metadata_path).read_text() == "<pad>\na b\n(space)\n"


def test_samples_stand_beside_what_they_were(tmp_path):
    summaries = Summaries(tmp_path)
    summaries.translations(1, ["s", "t"], ["r", "q"], ["new | one", "same"], ["old", "same"])
    events = EventAccumulator(str(tmp_path / "summaries"))
    events.Reload()
    [text] = events.Tensors("dev/translations")
    rows = tf.make_ndarray(text.tensor_proto).item().decode().split("\n")
    assert rows[2:] == ["| s | r | new &#124; one | old |", "| t | q | same |  |"]


def test_histograms_have_names(tmp_path):
    values = [("weights/a", np.arange(10.0).reshape(2, 5)), ("zeros", np.zeros(3)), ("none", np.full(3, np.nan))]
    values += [("some", np.array([1.0, np.inf, np.nan, 2.0]))]
    Summaries(tmp_path).histograms(5, values)
    events = EventAccumulator(str(tmp_path / "summaries"))
    events.Reload()
    [histogram] = events.Tensors("weights/a")
    buckets = tf.make_ndarray(histogram.tensor_proto)  # [left, right, count]
    assert histogram.step == 5 and buckets[:, 2].sum() == 10 and (buckets[0, 0], buckets[-1, 1]) == (0.0, 9.0)
    counts = [tf.make_ndarray(events.Tensors(name)[0].tensor_proto)[:, 2].sum() for name in ("zeros", "none", "some")]
    assert counts == [3, 0, 2]
    assert events.SummaryMetadata("weights/a").plugin_data.plugin_name == "histograms"


def test_a_worker_that_is_not_the_chief_writes_nothing(tmp_path):
    summaries = Summaries(tmp_path, enabled=False)
    summaries.run(ExperimentConfig(), "mine")
    summaries.embeddings({"a": (np.zeros((1, 1)), ["a"])})
    summaries.histograms(1, (pytest.fail("weights are copied for nothing") for _ in "a"))
    summaries.scalars(1, {"loss": 1.0})
    summaries.translations(1, ["a"], ["b"], ["c"])
    summaries.attention(1, b"no picture")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def plain_picture():
    return attention_picture(
        np.eye(T, S), ["▁a", "▁b", "c", "d", "</s>"], ["▁e", "f", "</s>"], [5, 6, 7, 8, 3], [9, 10, 3]
    )


def test_event_files_hold_scalars_translations_and_attention(tmp_path, plain_picture):
    summaries = Summaries(tmp_path)
    summaries.translations(7, ["one", "two"], ["一", "二"], ["一一", ""])
    summaries.attention(7, plain_picture[0])
    names = ["loss", "perplexity", "learning_rate", "dev_loss", "dev_bleu", "of_my_own_loss", "dev_of_my_own"]
    summaries.scalars(7, {name: 0.5 + i for i, name in enumerate(names)})
    summaries.scalars(9, {"loss": 8.0})
    events = EventAccumulator(str(tmp_path / "summaries"), size_guidance={"tensors": 0}).Reload()
    assert sorted(events.Tags()["tensors"]) == sorted(
        [
            "train/loss",
            "train/perplexity",
            "train/learning_rate",
            "train/of_my_own_loss",
            "dev/loss",
            "dev/bleu",
            "dev/of_my_own",
            "dev/translations",
            "dev/attention",
        ]
    )
    values = [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors("train/loss")]
    assert values == [(7, 0.5), (9, 8.0)]
    assert [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors("dev/bleu")] == [
        0.5 + names.index("dev_bleu")
    ]
    table = tf.make_ndarray(events.Tensors("dev/translations")[0].tensor_proto).item().decode()
    head = "| source | reference | hypothesis | before |\n|---|---|---|---|\n"
    assert table == head + "| one | 一 | 一一 |  |\n| two | 二 |  |  |"
    width, height, encoded = tf.make_ndarray(events.Tensors("dev/attention")[0].tensor_proto)[:3]
    assert tf.image.decode_png(encoded).shape == (int(height), int(width), 3)


def test_a_bar_in_a_sentence_does_not_break_the_table(tmp_path):
    summaries = Summaries(tmp_path)
    summaries.translations(1, ["a | b"], ["c"], ["d"])
    summaries.scalars(1, {"loss": 1.0})
    events = EventAccumulator(str(tmp_path / "summaries")).Reload()
    table = tf.make_ndarray(events.Tensors("dev/translations")[0].tensor_proto).item().decode()
    assert table.split("\n")[2].replace("\\|", "").replace("&#124;", "").count("|") == 5


def test_the_picture_is_a_png_of_the_size_of_its_labels(plain_picture):
    picture, note = plain_picture
    assert note == ""
    assert picture.startswith(b"\x89PNG")
    height, width, _ = tf.image.decode_png(picture, 3).shape
    assert (width, height) == (int(100 * (2 + 0.35 * S)), int(100 * (1.5 + 0.3 * T)))


def test_the_picture_shows_the_weights():
    pieces = (["a"] * S, ["b"] * T, range(S), range(T))
    dark, light = (
        tf.image.decode_png(attention_picture(np.full((T, S), value), *pieces)[0], 3) for value in (1.0, 0.0)
    )
    assert np.mean(dark) < np.mean(light) - 20


@pytest.mark.parametrize("piece", ["$", "$$", "$x^$", "a$b$", "\\frac{", "_^%&#~", "\n", ""])
def test_any_piece_may_be_a_label(piece):
    """Matplotlib would read a pair of dollar signs as a formula."""
    picture, note = attention_picture(np.eye(2), [piece, "a"], ["b", piece], [4, 5], [6, 7])
    assert picture.startswith(b"\x89PNG") and note == ""


@pytest.fixture
def labels(monkeypatch):
    """The labels that are drawn: (of the source, of the target)."""
    from matplotlib.axes import Axes

    drawn = {}
    for axis in ("x", "y"):
        original = getattr(Axes, f"set_{axis}ticks")

        def spy(self, ticks, texts=None, *args, axis=axis, original=original, **kwargs):
            drawn[axis] = list(texts)
            return original(self, ticks, texts, *args, **kwargs)

        monkeypatch.setattr(Axes, f"set_{axis}ticks", spy)
    return drawn


def _fonts(monkeypatch, names, covered=True):
    """Has Matplotlib list its own DejaVu Sans, and under other names fonts that have all characters, or no more."""
    from matplotlib import font_manager

    dejavu = next(font for font in font_manager.fontManager.ttflist if font.name == "DejaVu Sans")
    entries = [dataclasses.replace(dejavu, name=name) for name in ("DejaVu Sans", *names)]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    found = (list(names[-1:]), frozenset()) if covered and names else None
    monkeypatch.setattr(module, "_fonts_of", lambda characters: found if found and characters else ([], characters))


CHINESE = (np.eye(2, 3), ["▁他", "说", "</s>"], ["▁he", "</s>"], [14, 15, 3], [16, 3])


def test_without_a_font_for_chinese_the_ids_stand_in(monkeypatch, labels):
    _fonts(monkeypatch, ["Some Serif"], covered=False)
    picture, note = attention_picture(*CHINESE)
    assert note == (
        "no font with Chinese characters is installed: the labels are the pieces' ids; pip install 'nmt_keras[cjk]', "
        "or install one such as Noto Sans CJK and draw again"
    )
    assert labels == {"x": ["14", "15", "3"], "y": ["▁he", "</s>"]}
    assert picture.startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore:Glyph")  # the font is DejaVu Sans under another name
def test_with_a_font_for_chinese_the_pieces_are_drawn(monkeypatch, labels):
    _fonts(monkeypatch, ["Some Serif", "Noto Sans CJK SC"])
    picture, note = attention_picture(*CHINESE)
    assert note == "labels in Noto Sans CJK SC"
    assert labels == {"x": ["▁他", "说", "</s>"], "y": ["▁he", "</s>"]}
    assert picture.startswith(b"\x89PNG")


def test_the_font_of_an_extra_draws_chinese_where_the_machine_has_none(monkeypatch):
    """A missing character is a box, the same for each, with a warning, which here is an error."""
    from matplotlib import font_manager

    dejavu = [font for font in font_manager.fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", dejavu)
    module._fonts_of.cache_clear()
    weights, source, *rest = CHINESE
    picture, note = attention_picture(weights, source, *rest)
    other, _ = attention_picture(weights, ["▁她", *source[1:]], *rest)
    module._fonts_of.cache_clear()
    assert note == "labels in Noto Sans CJK JP" and picture != other


def test_without_the_extra_no_font_is_added(monkeypatch):
    monkeypatch.setattr(module, "_FONT_PACKAGE", "no_such_package")
    assert not module._add_packaged_fonts()


@pytest.mark.parametrize(
    "text, script, font",
    [
        ("他说", "Chinese", "Noto Sans CJK"),
        ("これは本", "Japanese", "Noto Sans CJK"),
        ("한국", "Korean", "Noto Sans CJK"),
        ("বাংলা", "Bengali", "Noto Sans Bengali"),
        ("\U0001fae0", "some", "Noto Sans"),
    ],
)
def test_the_note_names_the_script_that_no_font_has(monkeypatch, text, script, font):
    _fonts(monkeypatch, [])
    assert f"no font with {script} characters is installed" in font_note(text)
    assert f"install one such as {font} and draw again" in font_note(text)
    assert font_note("Plain text, été") == ""


def test_fonts_are_looked_for_among_those_installed():
    families, uncovered = module._fonts_of(frozenset(map(ord, "abc")) | {0x10FFFE})
    assert len(families) == 1 and uncovered == {0x10FFFE}
    assert module._fonts_of(frozenset()) == ([], frozenset())


@pytest.mark.parametrize(
    "piece", ["हिन्दी", "ไทย", "한국", "😀", "አማ"], ids=["hindi", "thai", "korean", "emoji", "amharic"]
)
def test_characters_that_no_font_has_raise_no_warning(monkeypatch, piece):
    _fonts(monkeypatch, [])
    assert attention_picture(np.eye(2), [piece, "a"], ["b", "c"], [4, 5], [6, 7])[0].startswith(b"\x89PNG")


def test_heads_are_drawn_a_row_a_layer():
    weights = [np.random.default_rng(n).dirichlet(np.ones(S), size=(4, T)).astype(np.float32) for n in range(2)]
    picture = tf.image.decode_png(heads_picture(weights))
    one = tf.image.decode_png(heads_picture([weights[0][:2]]))
    assert picture.shape[0] > 1.5 * one.shape[0] and picture.shape[1] > 1.5 * one.shape[1]
    assert len(np.unique(picture.numpy().reshape(-1, picture.shape[-1]), axis=0)) > 20


def test_the_mean_of_the_last_layers_heads_is_the_attention_of_the_model():
    config = ModelConfig(encoder="transformer", decoder="transformer", d_model=16, num_heads=4, num_decoder_layers=3)
    model = build_seq2seq(config, 11, 7)
    source, target = tf.constant([[5, 6, 3], [7, 3, 0]]), tf.constant([[2, 4, 5, 6], [2, 6, 5, 0]])
    by_head = model.attention_by_head(source, target)
    assert [own.shape for own in by_head] == [(2, 4, 4, 3)] * 3
    np.testing.assert_allclose(tf.reduce_mean(by_head[-1], 1), model(source, target)[1], atol=1e-6)
    assert build_seq2seq(ModelConfig(d_model=8), 11, 7).attention_by_head(source, target) == []
