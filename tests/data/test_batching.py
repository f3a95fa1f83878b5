"""The pipeline that follows a batch plan."""

import numpy as np
import pytest
import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID
from nmt_keras.data.batch_plan import BatchPlan
from nmt_keras.data.batching import TrainingText, evaluation_batches, make_batch
from nmt_keras.data.corpus import ParallelCorpus, TextFile
from nmt_keras.data.encoded import EncodedCorpus, EncodedText
from nmt_keras.data.padding import rows_of, source_tensor
from nmt_keras.tokenizers.sentencepiece import SentencePieceTokenizer
from nmt_keras.tokenizers.words import WordTokenizer


def test_the_target_is_shifted_by_one_for_teacher_forcing():
    batch = make_batch(
        rows_of([[5, 6], [7], [8, 9, 4]]),
        rows_of([[4, 5, 6], [], [7]]),
        np.array([1.0, 0.5, 1.0], np.float32),
        np.array([30, 10, 20]),
        9,
        9,
    )
    np.testing.assert_array_equal(batch.source_ids, [[5, 6, 3, 0], [7, 3, 0, 0], [8, 9, 4, 3]])
    np.testing.assert_array_equal(batch.target_input_ids, [[2, 4, 5, 6], [2, 0, 0, 0], [2, 7, 0, 0]])
    np.testing.assert_array_equal(batch.target_output_ids, [[4, 5, 6, 3], [3, 0, 0, 0], [7, 3, 0, 0]])
    np.testing.assert_array_equal(batch.weights, [1, 0.5, 1])
    np.testing.assert_array_equal(batch.lines, [30, 10, 20])
    assert (PAD_ID, BOS_ID, EOS_ID) == (0, 2, 3)


def test_truncation_keeps_the_end_of_the_sentence_mark():
    batch = make_batch(
        rows_of([[5, 6, 7, 8], [5, 6]]), rows_of([[4, 5, 6], [4]]), np.ones(2, np.float32), np.zeros(2, np.int64), 3, 2
    )
    np.testing.assert_array_equal(batch.source_ids, [[5, 6, 3], [5, 6, 3]])
    np.testing.assert_array_equal(batch.target_input_ids, [[2, 4], [2, 4]])
    np.testing.assert_array_equal(batch.target_output_ids, [[4, 3], [4, 3]])
    np.testing.assert_array_equal(source_tensor(tf.ragged.constant([[5, 6, 7], []], tf.int32), 2), [[5, 3], [3, 0]])


WORDS = [f"w{i}" for i in range(30)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Opens text as a corpus of one file a side."""
    folder = tmp_path_factory.mktemp("text")
    made = iter(range(1000))

    def files(source, target):
        sides = []
        for lines in (source, target):
            path = folder / f"{next(made)}.txt"
            path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")
            sides.append([TextFile(str(path), str(folder / "cache"))])
        return ParallelCorpus(*sides)

    return files


@pytest.fixture(scope="module")
def corpus(files):
    rng = np.random.default_rng(2)
    sides = [[" ".join(rng.choice(WORDS, size)) for size in rng.integers(1, 12, 90)] for _ in range(2)]
    return files(*sides)


def _text(corpus, tokenizer=None, num_slices=1, seed=1, batch_tokens=60, length_factor=1.0, limit=40, **options):
    tokenizer = tokenizer or WordTokenizer(WORDS)
    lengths = [EncodedText(side[0], tokenizer).lengths for side in (corpus.sources, corpus.targets)]
    plan = BatchPlan(
        [lengths[0]],
        [lengths[1]],
        seed=seed,
        batch_tokens=batch_tokens,
        max_source_length=limit,
        max_target_length=limit,
        num_slices=num_slices,
        length_factor=length_factor,
    )
    return TrainingText(plan, corpus, tokenizer, tokenizer, max_source_length=limit, max_target_length=limit, **options)


def _take(dataset, count):
    return [tuple(leaf.numpy() for leaf in tf.nest.flatten(batch)) for batch in dataset.take(count)]


def _assert_same(batches, expected):
    assert len(batches) == len(expected)
    for a, b in zip(batches, expected):
        for x, y in zip(a, b):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def test_a_batch_holds_the_ids_of_its_lines(corpus):
    text = _text(corpus, num_slices=4)
    batches = list(text.dataset(0).take(text.plan.num_batches))
    seen = []
    tokenizer = WordTokenizer(WORDS)
    for batch in batches:
        assert batch.target_output_ids.shape[0] * batch.target_output_ids.shape[1] <= 60
        for row, line in enumerate(batch.lines.numpy().tolist()):
            ids = [batch.source_ids[row], batch.target_input_ids[row], batch.target_output_ids[row]]
            source, inputs, outputs = ([i for i in side.numpy().tolist() if i] for side in ids)
            if line < 0:
                assert (source, inputs, outputs, float(batch.weights[row])) == ([3], [2], [3], 0.0)
                continue
            seen.append(line)
            (english,), (chinese,) = corpus.fetch(np.array([line]))
            assert source == [*tokenizer.encode(english), 3]
            assert inputs == [2, *tokenizer.encode(chinese)]
            assert outputs == [*tokenizer.encode(chinese), 3]
            assert float(batch.weights[row]) == 1.0
    assert sorted(seen) == list(range(90))
    assert any((batch.lines.numpy() == -1).any() for batch in batches)
    assert batches[0].source_ids.dtype == batches[0].target_input_ids.dtype == tf.int32
    assert batches[0].lines.dtype == tf.int64 and batches[0].weights.dtype == tf.float32


@pytest.mark.parametrize("options", [{}, {"static_shapes": True}])
def test_starting_at_a_step_gives_what_follows_the_steps_before(corpus, options):
    size = _text(corpus).plan.num_batches
    whole = _take(_text(corpus, **options).dataset(0), size + 5)
    _assert_same(_take(_text(corpus, **options).dataset(size - 2), 7), whole[size - 2 :])


def test_the_slices_of_two_replicas_are_the_global_batch(corpus):
    whole = _take(_text(corpus, num_slices=4).dataset(3), 4)
    text = _text(corpus, num_slices=4)
    both = _take(text.dataset(3, 2, range(2)), 8)
    first, second = (_take(text.dataset(3, 2, range(i, i + 1)), 4) for i in (0, 1))
    _assert_same(both, [part for pair in zip(first, second) for part in pair])
    for pair, expected in zip(zip(first, second), whole):
        for parts, leaf in zip(zip(*pair), expected):
            assert parts[0].dtype == leaf.dtype
            np.testing.assert_array_equal(np.concatenate([_widened(part, leaf) for part in parts]), leaf)
        for slice_ in pair:
            assert all(ids[:, -1].any() for ids in slice_[:3])  # padded to its own longest sentence


def _widened(ids, whole):
    """A slice's ids with as many columns as those of the global batch."""
    return np.pad(ids, [(0, 0), (0, whole.shape[1] - ids.shape[1])]) if ids.ndim == 2 else ids


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_a_worker_makes_the_slices_of_its_own_replicas_alone_and_they_are_the_same(
    corpus, sentencepiece, alpha, monkeypatch
):
    """One process with four replicas, or two with two each."""
    options = {"tokenizer": sentencepiece, "batch_tokens": 400, "length_factor": 1.8, "limit": 80, "num_slices": 4}
    one = _take(_text(corpus, sampling_alpha=alpha, **options).dataset(1, 4, range(4)), 8)
    made, real = [], TrainingText._slice

    def spy(self, planned, step, number, *rest):
        made.append(number)
        return real(self, planned, step, number, *rest)

    monkeypatch.setattr(TrainingText, "_slice", spy)
    second = _take(_text(corpus, sampling_alpha=alpha, **options).dataset(1, 4, range(2, 4)), 4)
    _assert_same(second, [one[2], one[3], one[6], one[7]])
    assert set(made) == {2, 3}


def test_the_number_of_slices_changes_no_sample(corpus, sentencepiece):
    """A batch in four slices has the rows of the batch in one."""
    options = {"tokenizer": sentencepiece, "batch_tokens": 400, "length_factor": 1.8, "limit": 80, "num_slices": 4}
    whole = _take(_text(corpus, sampling_alpha=0.1, **options).dataset(0), 3)
    parts = _take(_text(corpus, sampling_alpha=0.1, **options).dataset(0, 4, range(4)), 12)
    for number, batch in enumerate(whole):
        joined = [
            _widened(leaf, batch[place])
            for part in parts[4 * number : 4 * number + 4]
            for place, leaf in enumerate(part)
        ]
        for place, leaf in enumerate(batch):
            np.testing.assert_array_equal(np.concatenate(joined[place :: len(batch)]), leaf)


@pytest.mark.parametrize("num_slices", [1, 2])
def test_no_tuner_keeps_the_end_of_an_iterator_waiting(corpus, num_slices):
    dataset = _text(corpus, num_slices=num_slices).dataset(0, num_slices, range(num_slices))
    assert dataset.options().autotune.enabled is False


def test_static_shapes_are_few_and_change_no_content(corpus):
    count = _text(corpus).plan.num_batches
    plain, static = (_text(corpus, static_shapes=s) for s in (False, True))
    shapes = set()
    for a, b in zip(_take(plain.dataset(0), count), _take(static.dataset(0), count)):
        rows = len(a[4])
        shapes.add((b[0].shape, b[1].shape))
        assert b[1].shape == b[2].shape
        for x, y in zip(a[:3], b[:3]):
            np.testing.assert_array_equal(y[:rows, : x.shape[1]], x)
            assert not y[:rows, x.shape[1] :].any()
        for ids, first in zip(b, (EOS_ID, BOS_ID, EOS_ID)):
            assert (ids[rows:, 0] == first).all() and not ids[rows:, 1:].any()
        assert not b[3][rows:].any() and (b[4][rows:] == -1).all()
        np.testing.assert_array_equal(b[4][:rows], a[4])
    expected = {((k.rows, k.source_length), (k.rows, k.target_length)) for k in static.plan.buckets}
    assert shapes == expected
    assert len(shapes) < count / 2


@pytest.fixture(scope="module")
def sentencepiece(corpus):
    source, target = corpus.text()
    return SentencePieceTokenizer.train(
        source + target, 34, "unigram", character_coverage=1.0, byte_fallback=False, normalization="identity"
    )


def test_sampled_segmentations_are_a_function_of_the_step(corpus, sentencepiece):
    options = {"tokenizer": sentencepiece, "batch_tokens": 200, "length_factor": 1.8, "limit": 80}
    best = _take(_text(corpus, **options).dataset(0), 6)
    sampled = _take(_text(corpus, sampling_alpha=0.1, **options).dataset(0), 6)
    again = _take(_text(corpus, sampling_alpha=0.1, **options).dataset(2), 4)
    other = _take(_text(corpus, sampling_alpha=0.1, seed=2, **options).dataset(2), 4)
    _assert_same(again, sampled[2:])
    assert any(a[0].tolist() != b[0].tolist() for a, b in zip(best, sampled))
    assert any(a[0].tolist() != b[0].tolist() for a, b in zip(other, again))
    for (source, inputs, outputs, _, lines), plain in zip(sampled, best):
        np.testing.assert_array_equal(lines, plain[4])
        assert [sentencepiece.decode(row) for row in source.tolist()] == corpus.fetch(lines)[0]
        assert [sentencepiece.decode(row) for row in outputs.tolist()] == corpus.fetch(lines)[1]
        assert outputs.size <= 200


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_training_text_needs_no_tokenizer_of_the_graph(corpus, sentencepiece, alpha, monkeypatch):
    monkeypatch.setattr(SentencePieceTokenizer, "_graph", lambda _: pytest.fail("made one"))
    [(source, *_, lines)] = _take(_text(corpus, sentencepiece, limit=80, sampling_alpha=alpha).dataset(0), 1)
    assert [sentencepiece.decode(row) for row in source.tolist()] == corpus.fetch(lines)[0]


def test_a_line_is_sampled_anew_in_each_epoch(corpus, sentencepiece):
    text = _text(corpus, sentencepiece, batch_tokens=200, length_factor=1.8, limit=80, sampling_alpha=0.1)
    count = text.plan.num_batches
    rows = [{}, {}]
    for epoch, found in enumerate(rows):
        for source, _, _, _, lines in _take(text.dataset(epoch * count), count):
            found.update(zip(lines.tolist(), ([i for i in row if i] for row in source.tolist())))
    assert rows[0].keys() == rows[1].keys()
    assert sum(rows[0][line] != rows[1][line] for line in rows[0]) > 30


def test_a_sample_that_is_too_long_gives_way_to_the_best_segmentation_and_is_counted(corpus, sentencepiece):
    text = _text(corpus, sentencepiece, batch_tokens=200, limit=80, sampling_alpha=0.1)
    assert text.num_overlong_samples == 0
    count = text.plan.num_batches
    for source, _, outputs, _, lines in _take(text.dataset(0), count):
        for row, line in enumerate(lines):
            (english,), (chinese,) = corpus.fetch(np.array([line]))
            assert sentencepiece.decode(source[row].tolist()) == english  # never cut
            assert sentencepiece.decode(outputs[row].tolist()) == chinese
        assert outputs.size <= 200
    assert 0 < text.num_overlong_samples < 2 * 90


def test_tokenizers_without_segmentations_to_choose_from_are_not_sampled(corpus):
    with pytest.raises(tf.errors.OpError, match="has one segmentation of a text"):
        _take(_text(corpus, sampling_alpha=0.1).dataset(0), 1)


def _evaluation(corpus, batch_tokens, limit=40, report=lambda line: None):
    tokenizer, limits = WordTokenizer(WORDS), {"max_source_length": limit, "max_target_length": limit}
    return list(evaluation_batches(corpus, tokenizer, tokenizer, batch_tokens=batch_tokens, report=report, **limits))


def test_evaluation_yields_each_line_once_within_the_budget(corpus):
    batches = _evaluation(corpus, 50)
    assert sorted(np.concatenate([batch.lines for batch in batches]).tolist()) == list(range(90))
    for batch in batches:
        longer = max(batch.source_ids.shape[1], batch.target_output_ids.shape[1])
        assert len(batch.lines) * longer <= 50
        np.testing.assert_array_equal(batch.weights, np.ones(len(batch.lines)))
    assert len(batches) < 45


def test_evaluation_leaves_out_pairs_with_an_empty_side_and_truncates_long_ones(files):
    corpus = files(["w1 w2", "", "w3", "", "w1 w2 w3 w4 w5"], ["w1", "w2", " ", "", "w6 w7 w8 w9"])
    lines = []
    batches = _evaluation(corpus, 100, limit=3, report=lines.append)
    assert lines == ["perplexity: of 5 pairs, 3 are left out because a side is empty, and 1 are cut to 3 and 3 ids"]
    assert sorted(np.concatenate([batch.lines for batch in batches]).tolist()) == [0, 4]
    last = batches[-1]
    np.testing.assert_array_equal(last.source_ids[-1], [5, 6, EOS_ID])
    np.testing.assert_array_equal(last.target_output_ids[-1], [10, 11, EOS_ID])


def test_weights_of_examples_reach_the_batches(files):
    corpus = files(["w1 w2", "w3", "w4 w5", "w6"], ["w1", "w2", "w3", "w4"])
    corpus.weights = [np.array([0.5, 0.0, 2.0, 1.0], np.float32)]
    tokenizer, limits = WordTokenizer(WORDS), {"max_source_length": 9, "max_target_length": 9}
    lengths = [[EncodedText(side[0], tokenizer).lengths] for side in (corpus.sources, corpus.targets)]
    plan = BatchPlan(*lengths, seed=1, batch_tokens=30, num_slices=4, example_weights=corpus.weights, **limits)
    [batch] = TrainingText(plan, corpus, tokenizer, tokenizer, **limits).dataset(0).take(1)
    weights = dict(zip(batch.lines.numpy().tolist(), batch.weights.numpy().tolist()))
    assert weights == {0: 0.5, 2: 2.0, 3: 1.0, -1: 0.0}


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_a_tag_is_before_each_source_and_counts_in_its_length(corpus, sentencepiece, alpha):
    limits = {"max_source_length": 80, "max_target_length": 80}
    encoded = EncodedCorpus(corpus, (sentencepiece, sentencepiece), tags=[77])
    plan = BatchPlan(*encoded.lengths, seed=1, batch_tokens=200, **limits)
    text = TrainingText(
        plan, corpus, sentencepiece, sentencepiece, encoded=encoded, sampling_alpha=alpha, static_shapes=True, **limits
    )
    widths = {bucket.source_length for bucket in plan.buckets}
    for source, _, _, weights, lines in _take(text.dataset(0), plan.num_batches):
        assert source.shape[1] in widths
        for row, line in zip(source[weights > 0].tolist(), lines[weights > 0]):
            assert row[0] == 77 and sentencepiece.decode(row[1:]) == corpus.fetch(np.array([line]))[0][0]
