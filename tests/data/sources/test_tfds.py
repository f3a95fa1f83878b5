"""Data sets of TFDS as text."""

import pytest

from nmt_keras.data.corpus import TextFile
from nmt_keras.data.sources.tfds import text_of_tfds
from nmt_keras.errors import UserError

PAIRS = [("one", "一"), ("two\nlines", "二\u2028行"), ("three", "三"), ("", "空")]


@pytest.fixture
def cache(tmp_path):
    return str(tmp_path / "cache")


def _open(name, cache, language, tfds_dir):
    return TextFile(text_of_tfds(name, cache, language, tfds_dir), cache)


def _lines(text):
    return text.lines(range(len(text)))


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """A TFDS folder with the data set `tiny_pairs`, made offline."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")

    class TinyPairs(tfds.core.GeneratorBasedBuilder):
        pkg_dir_path = folder  # this module is in no package
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            text = tfds.features.Text()
            features = tfds.features.FeaturesDict({"en": text, "zh": text})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(PAIRS), "test": self._generate_examples(PAIRS[:1])}

        def _generate_examples(self, pairs):
            yield from ((i, {"en": en, "zh": zh}) for i, (en, zh) in enumerate(pairs))

    builder = TinyPairs(data_dir=str(folder))
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return str(folder)


def test_a_tfds_data_set_is_text_written_once(tfds_dir, tmp_path, cache, monkeypatch):
    sides = [_open("tiny_pairs#train", cache, language, tfds_dir) for language in ("en", "zh")]
    assert sorted(zip(*map(_lines, sides))) == sorted((en.replace("\n", " "), zh) for en, zh in PAIRS)
    default = _open("tiny_pairs", cache, "en", tfds_dir)
    assert _lines(default) == _lines(sides[0])
    assert _lines(_open("tiny_pairs#test", cache, "zh", tfds_dir)) == ["一"]
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds, "load", lambda *_, **__: pytest.fail("loaded again"))
    assert _lines(_open("tiny_pairs#train", cache, "zh", tfds_dir)) == _lines(sides[1])


def test_another_version_or_another_folder_of_a_tfds_data_set_is_other_text(tmp_path, cache):
    import tensorflow_datasets as tfds

    def make(folder, version, words):
        class OtherPairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            """Pairs."""

            VERSION = tfds.core.Version(version)

            def _info(self):
                text = tfds.features.Text()
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict({"en": text, "zh": text})
                )

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples()}

            def _generate_examples(self):
                for number, word in enumerate(words):
                    yield number, {"en": word, "zh": word}

        builder = OtherPairs(data_dir=str(folder))
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))

    def read(folder):
        return _lines(_open("other_pairs", cache, "en", str(folder)))

    make(tmp_path / "one", "1.0.0", ["first"])
    assert read(tmp_path / "one") == ["first"]
    make(tmp_path / "one", "2.0.0", ["second", "third"])
    assert sorted(read(tmp_path / "one")) == ["second", "third"]
    make(tmp_path / "two", "1.0.0", ["of another folder"])
    assert read(tmp_path / "two") == ["of another folder"]


def test_what_a_tfds_data_set_lacks_is_named(tfds_dir, cache):
    with pytest.raises(UserError, match="^The TFDS data set 'tiny_pairs' has no feature 'de'; its features: en, zh$"):
        _open("tiny_pairs#train", cache, "de", tfds_dir)
    with pytest.raises(UserError, match="^Cannot load the TFDS data set 'tiny_pairs', split 'dev': .*dev"):
        _open("tiny_pairs#dev", cache, "en", tfds_dir)
    with pytest.raises(
        UserError, match="^Cannot load the TFDS data set 'no_such_pairs', split 'train': .*no_such_pairs"
    ):
        _open("no_such_pairs", cache, "en", tfds_dir)
