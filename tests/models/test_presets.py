"""Presets: networks of the literature by name."""

import pytest

from nmt_keras.errors import UserError
from nmt_keras.models.presets import PRESETS, apply_preset
from nmt_keras.models.seq2seq import build_seq2seq
from pipelines.recipes import multi30k_en_de, tatoeba_en_zh


@pytest.mark.parametrize("recipe", [multi30k_en_de, tatoeba_en_zh])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_valid_experiment_of_every_recipe(recipe, name):
    config = recipe.get_config(name)
    config.validate()
    assert config.data == recipe.get_config().data


def test_a_warm_up_ends_well_before_training_does():
    """Tatoeba's recipe makes 3,000 updates, fewer than the Transformer's 4,000 of warm-up."""
    training = tatoeba_en_zh.get_config("transformer_base").training
    assert training.warmup_steps == training.max_steps // 4
    assert (training.adam_beta2, training.adam_epsilon) == (0.98, 1e-9)


def test_the_base_transformer_has_the_papers_size():
    """Vaswani et al. 2017, table 3: 65 million with a joint vocabulary of 37,000."""
    model = build_seq2seq(multi30k_en_de.get_config("transformer_base").model, 37_000, 37_000)
    assert model.count_params() == pytest.approx(65e6, rel=0.05)


def test_no_name_changes_nothing_and_an_unknown_one_is_refused():
    config = multi30k_en_de.get_config()
    assert apply_preset(config, "") is config
    with pytest.raises(UserError, match="There is no preset 'gnt'; valid ones: rnn_luong, rnn_bahdanau, gnmt"):
        apply_preset(config, "gnt")
