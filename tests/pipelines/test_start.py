"""The first model of a user's own text, in one command."""

import dataclasses
import random
import re

import pytest

import nmt_keras
from examples.quickstart.corpus import demo_corpus
from nmt_keras.errors import UserError
from nmt_keras.experiment.text import open_train
from nmt_keras.reports import silent
from nmt_keras.tokenizers.building import sample_tokenizers
from pipelines import start


@pytest.fixture(scope="module")
def pairs():
    """English and Chinese lines of the project's own."""
    return demo_corpus(num_train=1500).train


@pytest.fixture(scope="module")
def folder(pairs, tmp_path_factory):
    """`pairs.tsv`: these lines, one that is no pair, and a name that must be quoted."""
    place = tmp_path_factory.mktemp("text")
    rows = ["\t".join(pair) for pair in pairs]
    (place / 'my "pairs".tsv').write_text("\n".join(["no pair", *rows]) + "\n", encoding="utf-8")
    return place


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments):
        given = {
            "data": 'my "pairs".tsv',
            "data_dir": folder,
            "source": "en",
            "target": "zh",
            "run_dir": tmp_path / "m",
        }
        given |= dict(argument.split("=", 1) for argument in arguments if "=" in argument)
        rest = [f"--{argument}" for argument in arguments if "=" not in argument]
        return start.main([*(f"--{name}={value}" for name, value in given.items()), *rest])

    return run


def test_a_recipe_is_written_sized_to_the_text_and_can_be_edited(run, folder, tmp_path, capsys):
    assert run("notrain") == 0
    errors = capsys.readouterr().err
    assert ".tsv: 1 record left out: " in errors and "fewer than 2 columns (1)" in errors and "1,500 pairs" in errors
    config = nmt_keras.recipe(tmp_path / "m.py")
    config.validate()
    data, training = config.data, config.training
    assert (data.data_dir, data.train_source, data.train_target) == (str(folder), ('my "pairs".tsv',), ("",))
    assert (data.dev_pairs, data.test_pairs, data.source_vocab_size) == (75, 75, 1000)
    assert not data.joint_vocabulary and not config.model.share_embeddings, "other scripts"
    assert training.max_steps >= 2000 and training.batch_tokens <= 4096
    (tmp_path / "m.py").write_text((tmp_path / "m.py").read_text().replace("dev_pairs=75", "dev_pairs=50"))
    assert run("notrain") == 0 and "is taken as it is" in capsys.readouterr().err
    assert nmt_keras.recipe(tmp_path / "m.py").data.dev_pairs == 50


@pytest.mark.parametrize(
    "header, arguments, message",
    [
        (
            "en\tzh",
            ("target=fr",),
            "has no column 'fr'; its first row is 'en', 'zh': give the codes of its columns, or",
        ),
        ("id\tsource\tgerman", (), "has no column 'zh'"),
        (
            "zh\tx",
            ("source=zh-Hans",),
            "zh-Hans and zh are the same column; its first row is 'zh', 'x': name each column",
        ),
        ("en\tzh", ("source=english",), "--source must be a language's code: en for english"),
        ("en\tzh", ("target=en",), "--source and --target must be two languages. Received: 'en' for both"),
        ("id\tSource Text", ("data=headed.tsv",), "headed.tsv has letters in 1 of the first 100 lines taken for 'en'"),
        ("1\t2", ("data=numbers.tsv",), "numbers.tsv has letters in 0 of the first 100 lines taken for 'en': name"),
    ],
)
def test_columns_that_are_not_those_are_refused(run, folder, pairs, tmp_path, capsys, header, arguments, message):
    rows = ["\t".join(pair) for pair in pairs[:300]]
    if "numbers" in str(arguments) or "headed" in str(arguments):
        rows = [f"{number}\t{row}" for number, row in enumerate(rows)]
    (folder / "table.tsv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    (folder / "headed.tsv").write_text("\n".join(["id\tSource Text\ttext", *rows]) + "\n", encoding="utf-8")
    (folder / "numbers.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert run("notrain", "data=table.tsv", *arguments) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "m.py").exists()


def test_columns_may_have_the_names_of_languages_and_codes_are_looked_up(run, folder, pairs, capsys):
    rows = ["No\tNo", *("\t".join(pair) for pair in pairs[:300])]
    (folder / "first.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert run("notrain", "data=first.tsv", "run_dir=" + str(folder / "first")) == 0, "words that are codes too"
    assert "301 pairs, about" in capsys.readouterr().err
    rows = ["\t".join(pair[::-1]) for pair in pairs[:300]]
    (folder / "named.tsv").write_text("\n".join(["Chinese\tEnglish", *rows]) + "\n", encoding="utf-8")
    assert run("notrain", "data=named.tsv") == 0
    assert "300 pairs, about" in capsys.readouterr().err
    assert run("notrain", "data=named.tsv#2,named.tsv#1", "source=xx", "run_dir=" + str(folder / "other")) == 0
    assert "warning: the language 'xx' is in no table: check its code" in capsys.readouterr().err


def test_it_trains_by_the_recipe_and_says_what_comes_next(run, tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(start, "run_training", lambda config, run_dir: seen.append((config, run_dir)) or True)
    assert run() == 0
    [(config, run_dir)] = seen
    assert config.data.test_pairs == 75 and run_dir == tmp_path / "m"
    errors = capsys.readouterr().err
    assert f"pipelines.export --run_dir={run_dir} --checkpoint=ema --output=saved_models/m" in errors
    monkeypatch.setattr(start, "run_training", lambda config, run_dir: False)
    assert run() == 75


@pytest.mark.parametrize(
    "argument, message",
    [
        ("source=", "--source must be given, as in --source=en"),
        ('target=d"e', "--target must be a language's code, such as en or zh-Hant. Received: 'd\"e'"),
        ("run_dir=/", "--run_dir must be a folder of its own, such as runs/mine. Received: /"),
        ("data=none.tsv", "Cannot read .*none.tsv"),
        ("data=a,b,c", "--data is one file of pairs, or two with a comma"),
        ("run_dir=/proc/none/m", "Cannot write /proc/none/m.py"),
    ],
)
def test_a_mistake_is_one_line(run, tmp_path, capsys, argument, message):
    assert run("notrain", argument) == 2
    lines = [line for line in capsys.readouterr().err.split("\n") if line]
    assert len(lines) == 1 and re.search(message, lines[0])
    assert not (tmp_path / "m.py").exists()


@pytest.mark.parametrize("fewest, most", [(9000, 100_000), (10, 30)])
def test_the_epochs_are_those_of_the_steps(run, tmp_path, capsys, monkeypatch, fewest, most):
    monkeypatch.setattr("nmt_keras.experiment.start._STEPS", (fewest, most))
    assert run("notrain") == 0
    said = capsys.readouterr().err
    [(median, steps, epochs)] = re.findall(r"about (\d+) pieces each;.* ([\d,]+) steps, about ([\d.]+) epochs", said)
    training = nmt_keras.recipe(tmp_path / "m.py").training
    assert training.max_steps == int(steps.replace(",", "")) in (fewest, most), "else the test sees no bound"
    of_epoch = (1500 - 2 * 75) * (int(median) + 1) / training.batch_tokens
    assert float(epochs) == pytest.approx(training.max_steps / of_epoch, abs=0.5)
    assert f"about {epochs} epochs" in (tmp_path / "m.py").read_text(encoding="utf-8")


def test_a_vocabulary_that_only_the_text_with_its_dev_and_test_set_fills_is_as_large_as_the_text_asks_for(
    run, folder, tmp_path
):
    rng = random.Random(1)
    words = ["".join(rng.choice("abcdefghijklmnop") for _ in range(6)) for _ in range(560)]
    rows = [f"{source}\t{target.upper()}\n" for source, target in zip(words[::2], words[1::2])]
    (folder / "words.tsv").write_text("".join(rows), encoding="utf-8")
    assert run("notrain", "data=words.tsv", "target=de") == 0
    data = nmt_keras.recipe(tmp_path / "m.py").data
    sizes = []
    for held_out in (0, 14):
        text = dataclasses.replace(data, source_vocab_size=1000, dev_pairs=held_out, test_pairs=held_out)
        sizes.append(sample_tokenizers(text, open_train(text, silent)).source.vocab_size)
    assert sizes[0] == 1000 > sizes[1]
    assert (data.dev_pairs, data.source_vocab_size) == (14, 8000)


def test_a_text_that_is_too_small_is_refused(run, folder, capsys):
    (folder / "few.tsv").write_text("dog\t狗\n" * 20, encoding="utf-8")
    assert run("notrain", "data=few.tsv") == 2
    assert (
        "few.tsv: 20 pairs, and a model needs 200 at least; give more text, as a further --data"
        in capsys.readouterr().err
    )


@pytest.mark.slow
@pytest.mark.parametrize("target", ["de", "zh"])
def test_the_recipe_for_a_toy_grammar_trains(target, tmp_path, monkeypatch, capsys):
    """A few words of many pairs cannot fill 1,000 pieces; the recipe must not ask for them."""
    words = {
        "de": "der hund katze rennt schläft frisst schnell langsam Äpfel".split(),
        "zh": list("我你他猫狗跑睡吃快慢"),
    }
    english = "the dog cat runs sleeps eats fast slowly apples".split()
    rows = []
    for number in range(900):
        picks = [number % 9, number // 9 % 9, number // 81 % 9]
        other = [words[target][pick] for pick in picks]
        rows.append(" ".join(english[pick] for pick in picks) + ".\t" + (" " if target == "de" else "").join(other))
    (tmp_path / "toy.tsv").write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    flags = ["--data=toy.tsv", f"--data_dir={tmp_path}", "--source=en", f"--target={target}", f"--run_dir={tmp_path}/m"]
    assert start.main([*flags, "--notrain"]) == 0
    text = (tmp_path / "m.py").read_text()
    for name in ("max_steps", "warmup_steps", "evaluate_every", "checkpoint_every"):
        text = re.sub(rf"{name}=\d+", f"{name}=2", text)
    text = re.sub(r"(num_\w+coder_layers)=\d+", r"\1=1", text)
    text = re.sub(r"(d_model|d_ff)=\d+", r"\1=32", text)
    (tmp_path / "m.py").write_text(text)
    capsys.readouterr()
    assert start.main(flags) == 0, capsys.readouterr().err
    assert "done: max_steps=2 reached" in capsys.readouterr().err


def test_a_remedy_that_is_a_flag_of_training_names_that_job(run, tmp_path, monkeypatch, capsys):
    def refuse(config, run_dir):
        raise UserError("shifted lines; go on with --config.data.on_findings=report")

    monkeypatch.setattr(start, "run_training", refuse)
    assert run() == 2
    wanted = f"on_findings=report; give it to python -m pipelines.train --config={tmp_path}/m.py --run_dir={tmp_path}/m"
    assert wanted in capsys.readouterr().err


def test_a_side_that_cannot_fill_its_vocabulary_leaves_the_other_as_it_is(tmp_path, monkeypatch, capsys):
    """9 English words are no 1,000 pieces; the other side has them, and would become whole phrases with 8,000."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = random.Random(1)
    english = "the dog cat runs sleeps eats fast slowly apples".split()
    words = ["".join(map(chr, rng.choices(range(0x4E00, 0x4E00 + 300), k=2))) for _ in range(700)]
    rows = [" ".join(rng.choices(english, k=5)) + ".\t" + "".join(rng.choices(words, k=5)) for _ in range(1500)]
    (tmp_path / "toy.tsv").write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    flags = ["--data=toy.tsv", f"--data_dir={tmp_path}", "--source=en", "--target=zh", f"--run_dir={tmp_path}/m"]
    assert start.main([*flags, "--notrain"]) == 0
    data = nmt_keras.recipe(tmp_path / "m.py").data
    assert (data.source_vocab_size, data.target_vocab_size) == (8000, 1000)
    assert " and 1000 pieces" in capsys.readouterr().err


def test_flags_that_a_recipe_does_not_follow_are_told(run, capsys):
    assert run("notrain") == 0
    capsys.readouterr()
    assert run("notrain", "data=other.tsv", "source=fr") == 0
    assert "warning: --data, --source differ from" in capsys.readouterr().err
    assert run("notrain") == 0 and "differ" not in capsys.readouterr().err
