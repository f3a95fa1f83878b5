"""Exports whose products are in int8 where that is faster: what is chosen, every family, the card, the refusal."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.config import ModelConfig
from nmt_keras.data.lexicon import Lexicon
from nmt_keras.errors import UserError
from nmt_keras.experiment import export as exporting
from nmt_keras.experiment.model_card import int8_products
from nmt_keras.inference.search import Search
from nmt_keras.inference.translator import Translator
from nmt_keras.layers.dense import ProductCall
from nmt_keras.models.ensemble import Ensemble
from nmt_keras.models.seq2seq import build_seq2seq
from nmt_keras.serving import int8, local
from nmt_keras.serving.export import TranslationModule
from tests.models.test_contracts import ALL, SMALL, SOURCE, TARGET, TEXTS, _name, _translating

B, S, K, D, F, V = 2, 3, 4, 8, 12, 11


@pytest.fixture
def all_pay(monkeypatch):
    """All products are said to be faster in int8."""
    monkeypatch.setattr(int8, "measured", lambda call: (2e-3, 1e-3))


def _transformer(**fields):
    fields = {**SMALL, "encoder": "transformer", "decoder": "transformer", "d_model": D, "d_ff": F, **fields}
    return build_seq2seq(ModelConfig(**fields), V, V)


def test_products_are_known_with_their_rows_and_with_what_they_share():
    model = _transformer(num_encoder_layers=1, num_decoder_layers=1)
    found = {path.removeprefix("seq2seq/"): calls for path, calls in _products(model).items()}
    call = ProductCall(B * S, D, D, True, None, False, False, False)
    assert found["encoder/layer_0/attention/query/kernel"] == [call._replace(sharing=3)]
    assert found["decoder/layer_0/cross_attention/key/kernel"] == [call._replace(sharing=2)]
    call = call._replace(rows=B * K)
    assert found["decoder/layer_0/mixer/attention/value/kernel"] == [call._replace(sharing=3)]
    assert found["decoder/layer_0/cross_attention/query/kernel"] == [call]
    inner = call._replace(output_width=F, activation=tf.nn.relu, is_operand=True)
    assert found["decoder/layer_0/feed_forward/inner/kernel"] == [inner]
    assert found["decoder/layer_0/feed_forward/outer/kernel"] == [call._replace(input_width=F)]
    assert found["output_projection/kernel"] == [call._replace(output_width=V)]
    assert len(found) == 4 + 2 + 4 + 4 + 2 + 1


def _products(model, **options):
    return int8.products_of(model, tf.constant(np.full([B, S], 5)), K, **options)


def test_a_tied_table_is_multiplied_transposed_and_a_shortlist_in_its_columns():
    model = _transformer(tie_output=True)
    [call] = _products(model)[model.target_embedding.table.path]
    assert call == ProductCall(B * K, D, V, True, None, False, True, False)
    [call] = _products(model, shortlist_ids=tf.constant([1, 2, 5]))[model.target_embedding.table.path]
    assert call == ProductCall(B * K, D, 3, False, None, False, True, True)


def test_what_is_slower_in_int8_stays_as_it_was(monkeypatch):
    """A weight is taken for what all its products take together."""
    times = {V: (2.0, 1.9), F: (2.0, 1.91), D: (1.0, 3.0)}
    monkeypatch.setattr(int8, "measured", lambda call: times[call.output_width])
    model = _transformer(num_encoder_layers=1, num_decoder_layers=1)
    found = int8.to_int8(model, tf.constant(np.full([B, S], 5)), K)
    assert [path.removeprefix("seq2seq/") for path in found.model.int8_kernels] == []
    times[V] = (2.0, 1.89)
    found = int8.to_int8(model, tf.constant(np.full([B, S], 5)), K)
    assert [path.removeprefix("seq2seq/") for path in found.model.int8_kernels] == ["output_projection/kernel"]
    assert found.weights == 1
    records = [choice.record() for choice in found.choices]
    assert sum(record["weights"] for record in records) == 17
    [record] = [record for record in records if record["int8"]]
    assert record == {
        "rows": B * K,
        "input_width": D,
        "output_width": V,
        "transpose_kernel": False,
        "is_gathered": False,
        "sharing": 1,
        "weights": 1,
        "microseconds": 2e6,
        "int8_microseconds": 1.89e6,
        "int8": True,
    }


@pytest.mark.parametrize("is_gathered", [False, True])
@pytest.mark.parametrize("transpose_kernel", [False, True])
def test_both_ways_of_a_product_are_timed(transpose_kernel, is_gathered):
    call = ProductCall(6, D, V, not is_gathered, None, False, transpose_kernel, is_gathered, sharing=2)
    assert all(0.0 < seconds < 1.0 for seconds in int8.measured(call))


@pytest.mark.slow
@pytest.mark.parametrize("fields", ALL, ids=_name)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_every_family_returns_from_a_saved_model_in_int8(fields, policy, all_pay, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        model, *others = _translating(fields)
    finally:
        keras.config.set_dtype_policy("float32")
    target = tf.minimum(TARGET, V - 1)
    in_its_own, _ = model(SOURCE, target)
    found = int8.to_int8(model, SOURCE, K)
    assert found.model.int8_kernels and all(choice.is_int8 for choice in found.choices)
    parts = found.model, *others
    tf.saved_model.save(TranslationModule(*parts, found.stored), str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    served = loaded.serve(tf.constant(TEXTS))
    expected = Translator(*parts).translate_batch(TEXTS)
    assert [text.decode() for text in served["translation"].numpy()] == [t.text for t in expected]
    np.testing.assert_allclose(served["log_prob"], [t.best.log_prob for t in expected], atol=1e-5)
    rounded, _ = found.model(SOURCE, target)  # of weights in int8, but not with their products
    assert np.abs(rounded - in_its_own).max() < 0.2 * np.abs(in_its_own).max()


def test_a_step_in_int8_is_near_that_of_the_same_weights(all_pay):
    model = _transformer(d_model=64, d_ff=96, num_heads=2)
    rng = np.random.default_rng(1)
    for weight in model.trainable_variables:
        weight.assign(weight + 0.1 * rng.normal(size=weight.shape))
    found = int8.to_int8(model, SOURCE, K).model
    logits = []
    for each in (model, found):
        memory = each.prepare(SOURCE)
        state = each.init_state(memory)
        step, _, _ = each.for_search().step(TARGET[:, :1], tf.constant(0), state, memory)
        logits.append(step.numpy())
    assert 1e-6 < np.abs(logits[1] - logits[0]).max() < 0.05 * np.abs(logits[0]).max()


def test_padding_of_the_source_changes_nothing_in_int8(all_pay):
    found = int8.to_int8(_transformer(d_model=64, d_ff=96), SOURCE, K).model
    memories = [found.prepare(ids) for ids in (SOURCE, tf.pad(SOURCE, [[0, 3], [0, 5]], constant_values=0))]
    for ours, wider in zip(*(tf.nest.flatten(memory.source) for memory in memories)):
        np.testing.assert_allclose(wider[:3, :, : SOURCE.shape[1]], ours, atol=1e-5)


def test_a_shortlist_searches_columns_in_int8(all_pay):
    model, source_tokenizer, target_tokenizer, config = _translating({})
    size = target_tokenizer.vocab_size
    proposals = np.tile(np.arange(4, 10, dtype=np.int32), [source_tokenizer.vocab_size, 1])
    lexicon = Lexicon(proposals, np.array([4], np.int32), np.array([]))
    config.shortlist = 3
    search = Search(model, target_tokenizer, config, lexicon=lexicon)
    ids = search.shortlist_ids(SOURCE)
    assert ids.numpy().tolist() == [0, 1, 2, 3, 4, 5, 6] and size > 7
    found = int8.to_int8(model, SOURCE, config.beam_size, ids)
    [call] = [choice.call for choice in found.choices if choice.call.is_gathered]
    assert call.output_width == 7
    translations = Translator(found.model, source_tokenizer, target_tokenizer, config, lexicon=lexicon).translate_batch(
        TEXTS
    )
    assert len(translations) == len(TEXTS)


def test_an_ensemble_has_kernels_of_its_own_for_each_member(all_pay):
    members = [_transformer(num_encoder_layers=1, num_decoder_layers=1) for _ in range(2)]
    found = int8.to_int8(Ensemble(members), SOURCE, K)
    assert len(found.stored) == sum(len(member.variables) for member in members)
    kernels = [member.int8_kernels["seq2seq/output_projection/kernel"].values.array for member in found.model.members]
    assert (kernels[0] != kernels[1]).any()
    assert [choice.weights for choice in found.choices if choice.call.output_width == V] == [2]


def test_where_it_cannot_run_it_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "is_available", lambda: False)
    with pytest.raises(UserError) as caught:
        exporting.export([tmp_path / "none"], "best", tmp_path / "saved", precision="int8_compute")
    assert str(caught.value) == (
        "--precision=int8_compute needs TensorFlow's oneDNN operations on an x86-64 processor that multiplies int8 "
        "(AVX-512 VNNI, AVX-VNNI or AMX), without TF_ENABLE_ONEDNN_OPTS=0: export where that is so, or give "
        "--precision=int8, which is as small and is computed in float32"
    )
    assert not (tmp_path / "saved").exists()


def test_an_export_that_cannot_run_here_is_not_loaded(tmp_path, monkeypatch):
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "parity.json").write_text('{"needs": "such a processor"}', encoding="utf-8")
    monkeypatch.setattr(local, "is_available", lambda: False)
    with pytest.raises(UserError) as caught:
        local.load_export(tmp_path)
    message = "needs such a processor: load it where that is so, or export it with another --precision"
    assert str(caught.value) == f"{tmp_path} {message}"


def test_the_card_has_what_it_needs_and_a_table():
    call = ProductCall(320, 512, 2048, True, tf.nn.relu, True, False, False)
    records = [int8.Choice(call, 3, *times).record() for times in ((1.29e-3, 1.0227e-3), (1e-3, 2e-3))]
    result = {"int8_products": records, "computed_in": "mixed_bfloat16", "needs": "such a processor"}
    assert int8_products(result).split("\n") == [
        "- Needs such a processor:",
        "  its warm-up requests fail on a server without.",
        "- Products and their times on the machine of the export, which chose those that are in int8:",
        "",
        "  | rows | kernel | weights | microseconds in mixed_bfloat16 | in int8 | is in int8 |",
        "  | --- | --- | --- | --- | --- | --- |",
        "  | 320 | 512 x 2048 | 3 | 1,290 | 1,023 | yes |",
        "  | 320 | 512 x 2048 | 3 | 1,000 | 2,000 | no |",
        "",
        "",
    ]
    assert "Needs" not in int8_products({**result, "needs": ""})
    none = int8_products({**result, "int8_products": records[1:]})
    assert none.startswith("- No product was faster in int8 on the machine of the export: all are in mixed_bfloat16,\n")
    assert int8_products({}) == ""
