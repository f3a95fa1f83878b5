"""Every tokenizer: the same ids and strings in Python and in a graph, and back again."""

import io
import json
import pathlib
import random
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf

from nmt_keras.constants import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from nmt_keras.errors import UserError
from nmt_keras.tokenizers import sentencepiece as sentencepiece_module
from nmt_keras.tokenizers.base import unknown_rate
from nmt_keras.tokenizers.building import load_tokenizer, train_tokenizer
from nmt_keras.tokenizers.sentencepiece import SentencePieceTokenizer
from nmt_keras.tokenizers.white_space import fold

KINDS = ("unigram", "bpe", "char", "byte", "word")
TEXTS = [
    "The old man walks to the market.",
    "The young woman walks along the river.",
    "A child reads under the old tree!",
    "老人走路去市场。",
    "孩子们在树下读书，很高兴！",
    "他问：“市场（老）在哪里？”",
    "全角，空格。 ＡＢＣ１２３",
    "يمشي الرجل إلى السوق",
    "les élèves ont été là",
    "price: $3,50 & 100%",
    "wow 😀 👩‍👩‍👧 ok",
]
SEEN = [*TEXTS, "", "the", "walks to the market."]
UNSEEN = ["zzz Ω ж 龘", "🐉🐉", "</s><s><pad><unk>", "a\u2028b\u0085c"]


@pytest.fixture(scope="module")
def tokenizers():
    return {kind: train_tokenizer(kind, TEXTS * 20, 360) for kind in KINDS}


@pytest.fixture(params=KINDS)
def tokenizer(request, tokenizers):
    return tokenizers[request.param]


@pytest.fixture
def trains_apart(monkeypatch):
    """Lets SentencePiece train in a process of its own, however small the text is."""
    monkeypatch.setattr(sentencepiece_module, "_MOST_SENTENCES_HERE", 3)


ODD = ["a\u2028b\u0085c\r\nd\x0b e", "x\x00y\ud800z", "", "  ", "long " * 2000, "\u4e00" * 3000, "\ufeff\u200b."]


@pytest.mark.parametrize("limit", ["_MOST_SENTENCES_HERE", "_MOST_CHARACTERS_HERE"])
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_model_that_is_trained_in_a_process_of_its_own_is_the_same(kind, limit, monkeypatch):
    options = {"byte_fallback": True, "user_symbols": ["<a b>", "\u2028"], "control_symbols": ["\u2581<2de>"]}
    here, there = [], []
    before = train_tokenizer(kind, (TEXTS + ODD) * 20, 380, report=here.append, **options)
    monkeypatch.setattr(sentencepiece_module, limit, 3)
    monkeypatch.setattr(sentencepiece_module, "_train_here", pytest.fail)
    assert train_tokenizer(kind, (TEXTS + ODD) * 20, 380, report=there.append, **options).sha256 == before.sha256
    assert here == there and "40 lines of over 4,192 bytes" in here[0]


def test_the_reason_of_a_failure_comes_from_the_process_that_trains(monkeypatch):
    messages, shrunk = [], []
    for most in (20_000, 3):
        monkeypatch.setattr(sentencepiece_module, "_MOST_SENTENCES_HERE", most)
        with pytest.raises(UserError) as caught:
            train_tokenizer("unigram", TEXTS * 20, 5000)
        messages.append(str(caught.value))
        shrunk.append(train_tokenizer("unigram", TEXTS * 20, 5000, may_shrink=True).sha256)
    assert messages[0] == messages[1] and "set it to a value <= " in messages[1]
    assert shrunk[0] == shrunk[1]


@pytest.mark.parametrize("most", [10**6, 3])
def test_a_failure_before_all_was_read_comes_through(monkeypatch, most):
    """It is of the kind that SentencePiece raises."""
    monkeypatch.setattr(sentencepiece_module, "_MOST_SENTENCES_HERE", most)
    with pytest.raises(SyntaxError, match='unknown enumeration value of "none such"'):
        train_tokenizer("none such", TEXTS * 5000, 500)


def test_a_fault_of_the_sentences_ends_the_process_that_trains(trains_apart):
    def sentences():
        yield from TEXTS
        raise UserError("line 12 cannot be read")

    with pytest.raises(UserError, match="^line 12 cannot be read$"):
        train_tokenizer("bpe", sentences(), 300)


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "raise ImportError"])
def test_a_process_that_is_ended_as_it_trains_is_one_line(trains_apart, monkeypatch, end):
    program = sentencepiece_module._TRAINER.replace("import sentencepiece\n", f"import os; {end}\n")
    monkeypatch.setattr(sentencepiece_module, "_TRAINER", program)
    with pytest.raises(UserError, match="ended with status (-9|1) and without a model: read what it printed"):
        train_tokenizer("bpe", TEXTS, 300)


def test_other_threads_go_on_while_a_large_text_is_trained_on():
    """The chief of a cluster tells the others every few seconds that it is there."""
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(8000)]
    texts = [" ".join(rng.choices(words, k=10)) for _ in range(31_000)]
    largest, is_done = 0.0, threading.Event()

    def tick():
        nonlocal largest
        last = time.monotonic()
        while not is_done.wait(0.01):
            now = time.monotonic()
            largest, last = max(largest, now - last), now

    thread = threading.Thread(target=tick)
    thread.start()
    train_tokenizer("unigram", texts, 2000)
    is_done.set()
    thread.join()
    assert 0.0 < largest < 1.0


def _train(**options):
    """A model of the user's own, with special ids as SentencePiece's trainer is told."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=model,
        vocab_size=200,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


def _encode_tf(tokenizer, texts):
    return tokenizer.encode_tf(tf.constant(texts, tf.string))


def _decode_tf(tokenizer, ids):
    return [text.decode() for text in tokenizer.decode_tf(tf.ragged.constant(ids, tf.int32, 1)).numpy()]


@pytest.mark.parametrize("texts", [SEEN, UNSEEN, [""], ["", "the", ""]], ids=["seen", "unseen", "empty", "with empty"])
def test_graph_and_python_give_the_same_ids(tokenizer, texts):
    ids = _encode_tf(tokenizer, texts)
    assert ids.dtype == tf.int32
    assert ids.to_list() == [tokenizer.encode(text) for text in texts]


def test_a_batch_without_any_string_gives_no_ids(tokenizer):
    assert _encode_tf(tokenizer, []).to_list() == []
    assert _decode_tf(tokenizer, []) == []


def test_an_empty_string_has_no_ids_and_back(tokenizer):
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


def test_text_survives_the_round_trip(tokenizer):
    ids = [tokenizer.encode(text) for text in SEEN]
    assert [tokenizer.decode(i) for i in ids] == SEEN
    assert _decode_tf(tokenizer, ids) == SEEN


def test_text_survives_the_round_trip_inside_one_graph(tokenizer):
    graph = tf.function(
        lambda text: tokenizer.decode_tf(tokenizer.encode_tf(text)),
        autograph=False,
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    assert [text.decode() for text in graph(tf.constant(SEEN)).numpy()] == SEEN


def test_graph_and_python_decode_any_ids_to_the_same_string(tokenizer):
    rng = np.random.default_rng(3)
    ids = [rng.integers(0, tokenizer.vocab_size, size).tolist() for size in (0, 1, 2, 3, 5, 8, 13, 21, 34, 34, 34, 34)]
    assert _decode_tf(tokenizer, ids) == [tokenizer.decode(i) for i in ids]


def test_special_ids_are_never_encoded(tokenizer):
    for text in [*SEEN, *UNSEEN, "<s>", "</s>", "<pad>"]:
        assert not {PAD_ID, BOS_ID, EOS_ID} & set(tokenizer.encode(text))
        assert max(tokenizer.encode(text), default=0) < tokenizer.vocab_size


def test_special_ids_are_left_out_of_decoded_text(tokenizer):
    ids = tokenizer.encode("The old")
    text = tokenizer.decode(ids)
    padded = [BOS_ID, ids[0], PAD_ID, *ids[1:], EOS_ID, PAD_ID, PAD_ID]
    assert tokenizer.decode(padded) == text
    assert _decode_tf(tokenizer, [padded, [BOS_ID, EOS_ID, PAD_ID]]) == [text, ""]


def test_pieces_of_the_special_ids_have_the_same_names(tokenizer):
    assert [tokenizer.piece(i) for i in range(4)] == ["<pad>", "<unk>", "<s>", "</s>"]


def test_pieces_are_what_people_read(tokenizers):
    assert tokenizers["byte"].piece(0x4A + 4) == "<0x4A>"
    for kind in ("char", "word"):
        assert [tokenizers[kind].piece(i) for i in tokenizers[kind].encode("老")] == [
            "老" if kind == "char" else "<unk>"
        ]
    pieces = [tokenizers["unigram"].piece(i) for i in tokenizers["unigram"].encode("The old")]
    assert "".join(pieces) == "▁The▁old"


def test_surfaces_joined_are_the_text(tokenizer):
    """But for the space that a tokenizer writes before the first word."""
    for text in [*SEEN, *UNSEEN]:
        ids = tokenizer.encode(text)
        joined = b"".join(tokenizer.surface(i) for i in ids).decode("utf-8")
        assert joined.removeprefix(" ").split() == tokenizer.decode(ids).split()
    assert [tokenizer.surface(i) for i in (PAD_ID, BOS_ID, EOS_ID)] == [b""] * 3


def test_a_saved_tokenizer_gives_the_same_ids(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "deep" / "tokenizer")
    loaded = load_tokenizer(tmp_path / "deep" / "tokenizer")
    assert type(loaded) is type(tokenizer)
    assert (loaded.sha256, loaded.vocab_size) == (tokenizer.sha256, tokenizer.vocab_size)
    assert [loaded.encode(text) for text in SEEN + UNSEEN] == [tokenizer.encode(text) for text in SEEN + UNSEEN]
    assert _encode_tf(loaded, SEEN).to_list() == [tokenizer.encode(text) for text in SEEN]


def test_different_tokenizers_have_different_hashes(tokenizers):
    assert len({tokenizer.sha256 for tokenizer in tokenizers.values()}) == len(KINDS)


def test_what_is_no_tokenizer_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"none holds no complete tokenizer \(.*No such file.*\); restore the run"):
        load_tokenizer(tmp_path / "none")
    (tmp_path / "tokenizer.json").write_text('{"kind": "sentencepiece"}')
    with pytest.raises(UserError, match=r"holds no complete tokenizer \(.*sentencepiece\.model"):
        load_tokenizer(tmp_path)
    for broken in ("{", "{}"):
        (tmp_path / "tokenizer.json").write_text(broken)
        with pytest.raises(UserError, match="holds no complete tokenizer"):
            load_tokenizer(tmp_path)


def test_white_space_is_folded_before_a_text_is_cut(tokenizer):
    odd, plain = "\tThe\u00a0old \u200b\u2003 man\n walks\u00ad.", "The old man walks."
    assert tokenizer.encode(odd) == tokenizer.encode(plain)
    assert _encode_tf(tokenizer, [odd]).to_list() == [tokenizer.encode(plain)]
    for found, wanted in zip(*(tokenizer.encode_with_offsets_tf(tf.constant([text])) for text in (odd, plain))):
        assert found.to_list() == wanted.to_list()
    if tokenizer.samples:
        assert tokenizer.sample([odd], 0.5, [1]) == tokenizer.sample([plain], 0.5, [1])


def test_a_tokenizer_that_was_saved_before_white_space_was_folded_stays_as_it_is(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.folds and again.sha256 == tokenizer.sha256
    card = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert card.pop("folds_white_space") is True
    (tmp_path / "tokenizer.json").write_text(json.dumps(card), encoding="utf-8")
    old = load_tokenizer(tmp_path)
    assert not old.folds and old.sha256 != tokenizer.sha256
    assert old.encode("The\u00a0\told") != tokenizer.encode("The\u00a0\told") == tokenizer.encode("The old")
    (tmp_path / "again").mkdir()
    old.save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").sha256 == old.sha256


def test_lines_too_long_for_sentencepiece_are_cut_and_said():
    said = []
    long = [" ".join(["word", "other", "third"] * 500), "字" * 3000, "short line"]
    tokenizer = train_tokenizer("unigram", long, 300, may_shrink=True, report=said.append)
    assert "tokenizer: 2 lines of over 4,192 bytes cut at spaces to train it" in said
    assert len(tokenizer.encode("word other third")) < 10 and UNK_ID not in tokenizer.encode("字")


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_vocabulary_that_the_text_cannot_fill_shrinks_where_it_may(kind):
    said = []
    tokenizer = train_tokenizer(kind, TEXTS, 8000, may_shrink=True, report=said.append)
    assert 260 < tokenizer.vocab_size < 8000
    assert said == [f"tokenizer: the text fills {tokenizer.vocab_size:,} pieces, not 8,000: so many are made"]
    with pytest.raises(UserError, match="cannot train 8,000 pieces on this text: .*set it to a value <= "):
        train_tokenizer(kind, TEXTS, 8000)


def test_a_resource_that_was_destroyed_is_made_again(tokenizer, tokenizers):
    before = _encode_tf(tokenizer, SEEN).to_list()
    tf.random.set_seed(1)
    for each in tokenizers.values():  # the seed destroys those of all
        each.renew()
    assert _encode_tf(tokenizer, SEEN).to_list() == before


def test_no_model_makes_sentencepiece_write_to_the_log():
    program = (
        "import sys, tensorflow as tf; from nmt_keras.tokenizers.sentencepiece import SentencePieceTokenizer as T; "
        "t = T(sys.stdin.buffer.read()); t.encode('a'); t.encode_tf(tf.constant(['a']))"
    )
    result = subprocess.run([sys.executable, "-c", program], input=_train(), capture_output=True, check=True)
    assert b"normalizer.cc" not in result.stderr


def test_the_surface_of_an_unknown_piece_is_the_models_own():
    tokenizer = SentencePieceTokenizer(_train(unk_surface="[?]"))
    assert tokenizer.surface(UNK_ID) == b"[?]" and "[?]" in tokenizer.decode([UNK_ID])
    assert SentencePieceTokenizer(_train()).surface(UNK_ID) == " \u2047 ".encode()


@pytest.mark.parametrize("kind, samples", [("unigram", True), ("bpe", True), ("char", False), ("word", False)])
def test_a_model_samples_by_its_own_type(kind, samples):
    assert SentencePieceTokenizer(_train(model_type=kind)).samples == samples


def test_byte_tokenizer_adds_four_to_each_byte(tokenizers):
    assert tokenizers["byte"].encode("Aé") == [69, 0xC3 + 4, 0xA9 + 4]
    assert tokenizers["byte"].vocab_size == 260
    assert _decode_tf(tokenizers["byte"], [[69, 4, 70]]) == ["A\0B"]


def test_list_tokenizers_rank_by_frequency_and_break_ties_by_the_smaller_symbol():
    tokenizer = train_tokenizer("word", ["b a c c", "d c. a", "b e"], 4 + 3)
    assert tokenizer.vocab_size == 7
    assert [tokenizer.piece(i) for i in (4, 5, 6)] == ["a", "b", "c"]
    assert tokenizer.encode("c a b c. e") == [6, 4, 5, UNK_ID, UNK_ID]
    assert tokenizer.decode([5, UNK_ID]) == "b \u2047"
    assert train_tokenizer("char", ["bba", "ac"], 4 + 2).encode("abc") == [4, 5, UNK_ID]


def test_words_are_split_at_any_white_space():
    tokenizer = train_tokenizer("word", ["a\u3000b c\u00a0d"], 9)
    for text in ("a\u3000b  c\u00a0d ", "\t a\u3000b\n", "a\x0bb\x0cc\x1cd\x85e"):
        assert _encode_tf(tokenizer, [text]).to_list() == [tokenizer.encode(text)]
    assert tokenizer.decode(tokenizer.encode("  a\u3000b \t c\u00a0d ")) == "a b c d"


def test_byte_fallback_leaves_nothing_unknown(tokenizers):
    for kind in ("unigram", "bpe", "byte"):
        for text in UNSEEN:
            ids = tokenizers[kind].encode(text)
            assert UNK_ID not in ids
            assert tokenizers[kind].decode(ids) == fold(text)
            assert _decode_tf(tokenizers[kind], [ids]) == [fold(text)]
    assert len(tokenizers["unigram"].encode("🐉")) >= 4
    without = train_tokenizer("unigram", TEXTS * 20, 110, byte_fallback=False)
    assert UNK_ID in without.encode("🐉")


def test_unknown_rate_is_the_share_of_unknown_ids():
    tokenizer = train_tokenizer("word", ["a b c"], 10)
    assert unknown_rate(tokenizer, ["a x b", "y", "c c c c"]) == 2 / 8
    assert unknown_rate(tokenizer, [""]) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1},
        {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": 3},
        {"unk_id": 2, "bos_id": -1, "eos_id": 0, "pad_id": 1},
        {"unk_id": 5, "bos_id": 7, "eos_id": 6, "pad_id": -1},
    ],
    ids=["no pad", "pad last", "no bos", "late"],
)
@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_special_ids_of_a_users_model_are_mapped_to_ours(options, model_type, tmp_path):
    model = _train(model_type=model_type, **options)
    tokenizer = SentencePieceTokenizer(model)
    plain = sentencepiece.SentencePieceProcessor(model_proto=model)
    given = sum(i >= 0 for i in options.values())
    assert tokenizer.vocab_size == plain.get_piece_size() - given + 4
    assert [tokenizer.piece(i) for i in range(4)] == ["<pad>", "<unk>", "<s>", "</s>"]
    ordinary = [plain.id_to_piece(i) for i in range(plain.get_piece_size()) if i not in options.values()]
    assert [tokenizer.piece(i) for i in range(4, tokenizer.vocab_size)] == ordinary
    for text in ("The old man walks.", "孩子们在树下读书", ""):
        ids = tokenizer.encode(text)
        assert [tokenizer.piece(i) for i in ids] == plain.encode(text, out_type=str)
        assert min(ids, default=4) >= 4
        assert tokenizer.decode([BOS_ID, *ids, EOS_ID, PAD_ID]) == text
        assert _encode_tf(tokenizer, [text]).to_list() == [ids]
        assert _decode_tf(tokenizer, [[BOS_ID, *ids, EOS_ID, PAD_ID]]) == [text]
    unknown = tokenizer.encode("The 龘 old")
    assert [i == UNK_ID for i in unknown] == [i == options["unk_id"] for i in plain.encode("The 龘 old")]
    assert unknown.count(UNK_ID) == 1
    assert _encode_tf(tokenizer, ["The 龘 old"]).to_list() == [unknown]
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])


@pytest.mark.parametrize("model", [b"this is no model", b"", b"\xff" * 64], ids=["text", "empty", "binary"])
def test_what_is_no_sentencepiece_model_is_refused(model):
    with pytest.raises(
        UserError,
        match="^The tokenizer's model is not a SentencePiece model; train one with "
        "sentencepiece or leave the field empty$",
    ):
        SentencePieceTokenizer(model)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("size", [20_000, 40], ids=["too large", "too small"])
def test_a_vocabulary_that_the_text_cannot_fill_is_refused(kind, size):
    with pytest.raises(
        UserError,
        match=f"^SentencePiece cannot train {size:,} pieces on this text: .*[Vv]ocabulary size.*; "
        r"set data\.source_vocab_size \(or data\.target_vocab_size\) to a size",
    ):
        train_tokenizer(kind, TEXTS, size)


def _seeds(first):
    """Of the samples of `SEEN`."""
    return range(first, first + len(SEEN))


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_sampled_segmentations_repeat_with_their_seed(tokenizers, kind):
    tokenizer = tokenizers[kind]
    first, again, other = (tokenizer.sample(SEEN, 0.1, _seeds(seed)) for seed in (7, 7, 800))
    assert first == again
    assert first != other
    assert first != [tokenizer.encode(text) for text in SEEN]
    for sample in (first, other, tokenizer.sample(SEEN, 0.1, _seeds((1 << 63) + 5))):
        assert [tokenizer.decode(ids) for ids in sample] == SEEN
        assert not {PAD_ID, BOS_ID, EOS_ID} & set(np.concatenate(sample).astype(int).tolist())


def test_another_process_draws_the_same_samples(tokenizers, tmp_path):
    kinds = ("unigram", "bpe")
    for kind in kinds:
        tokenizers[kind].save(tmp_path / kind)
    program = (
        "import json, pathlib, sys; from nmt_keras.tokenizers.building import load_tokenizer; "
        "made = [load_tokenizer(pathlib.Path(path)) for path in sys.argv[2:]]; "
        "made[0].sample(['some text'], 0.5, [3]); texts = json.loads(sys.argv[1]); "
        "print(json.dumps([tokenizer.sample(texts, 0.1, range(7, 7 + len(texts))) for tokenizer in made]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, json.dumps(SEEN), *(str(tmp_path / kind) for kind in kinds)],
        capture_output=True,
        text=True,
        check=True,
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert json.loads(result.stdout) == [tokenizers[kind].sample(SEEN, 0.1, _seeds(7)) for kind in kinds]


def test_a_surrogate_alone_is_sampled_as_it_is_encoded(tokenizers):
    tokenizer = tokenizers["unigram"]
    broken, mended = (f"{SEEN[0]} {end}" for end in ("\ud800", "?"))
    assert tokenizer.encode(broken) == tokenizer.encode(mended)
    assert tokenizer.sample([broken], 0.1, [9]) == tokenizer.sample([mended], 0.1, [9])


def test_a_sample_does_not_depend_on_what_was_encoded_before(tokenizers):
    tokenizer = tokenizers["unigram"]
    first = tokenizer.sample(SEEN, 0.1, _seeds(9))
    tokenizer.sample(TEXTS, 0.5, range(len(TEXTS)))
    tokenizer.encode(TEXTS[0])
    assert tokenizer.sample(SEEN, 0.1, _seeds(9)) == first
    assert [tokenizer.sample([text], 0.1, [seed])[0] for text, seed in zip(SEEN, _seeds(9))] == first


def test_identity_normalization_keeps_full_width_punctuation(tokenizers):
    text = "他问：“市场（老）在哪里？”ＡＢＣ１２３"
    assert tokenizers["unigram"].decode(tokenizers["unigram"].encode(text)) == text
    nfkc = train_tokenizer("unigram", TEXTS * 20, 350, normalization="nfkc")
    assert nfkc.decode(nfkc.encode(text)) == "他问:“市场(老)在哪里?”ABC123"


@pytest.mark.parametrize("kind", ["unigram", "bpe", "char", "byte"])
def test_words_are_of_word_tokenizers_alone(tokenizers, kind):
    with pytest.raises(NotImplementedError, match="the ids of this tokenizer are not of words"):
        tokenizers[kind].words_tf(tf.constant(["a"]))


def test_the_words_of_a_text_are_those_between_white_space_and_one_an_id(tokenizers):
    text = tf.constant(["  two\u3000words ", ""])
    assert tokenizers["word"].words_tf(text).to_list() == [[b"two", b"words"], []]
    assert tokenizers["word"].encode_tf(text).row_lengths().numpy().tolist() == [2, 0]


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_control_symbol_has_an_id_that_no_text_has(kind):
    tag = "<2de>"
    sentences = [f"{tag} ab {word}" for word in ("a", "b", "ab")] * 20
    tokenizer = train_tokenizer(kind, sentences, 300, control_symbols=[tag], may_shrink=True)
    number = tokenizer.control_id(tag)
    assert tokenizer.piece(number) == tag and tokenizer.surface(number) == b""
    for text in (tag, f"{tag} ab", f"x{tag}"):
        assert number not in tokenizer.encode(text)
        assert number not in tokenizer.encode_tf(tf.constant([text])).values.numpy()
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode([number, *tokenizer.encode("ab")]) == "ab"
    assert tokenizer.control_id("<2fr>") is None and tokenizer.control_id("a") is None
    assert tokenizer.control_id("<s>") is None


def test_a_users_symbol_is_no_control_symbol(tokenizers):
    tokenizer = train_tokenizer("unigram", ["<2de> a b ab"] * 20, 300, user_symbols=["<2de>"], may_shrink=True)
    assert tokenizer.control_id("<2de>") is None
    assert [tokenizers[kind].control_id("a") for kind in ("char", "byte", "word")] == [None] * 3
