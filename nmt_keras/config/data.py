"""The section `data` of an experiment."""

from dataclasses import dataclass

from nmt_keras.config.fields import ALLOWED, FREE, spec


def tag_of(language: str) -> str:
    """The tag that asks a model of several target languages for one, such as <2de>."""
    return f"<2{language}>"


@dataclass
class DataConfig:
    """What is read, how it becomes ids, and how long a sentence may be (lengths are in ids, EOS included)."""

    source_language: str = spec("en", "code of the source language, such as en or zh-Hant")
    target_language: str = spec(
        "zh",
        "code of the target language; BLEU's tokenizer follows from it; of several, the one that is taken where none "
        "is asked for",
    )
    data_dir: str = spec("", "prefix of relative paths", resume=FREE)
    train_source: tuple[str, ...] = spec(
        (), "text files, files of other formats or tfds:NAME[#SPLIT]: docs/data.md", resume=ALLOWED
    )
    train_target: tuple[str, ...] = spec(
        (), "their translations; () where each of train_source holds both sides", resume=ALLOWED
    )
    inline_tags: str = spec(
        "drop",
        "what becomes of tags inside the segments of TMX and XLIFF; placeholders are <1>, </1> and <2/>",
        choices=("drop", "placeholders"),
    )
    train_languages: tuple[str, ...] = spec(
        (), "the target language of each corpus, of a model of several; () is target_language of all", resume=ALLOWED
    )
    train_weights: tuple[float, ...] = spec(
        (), "visits of each line an epoch, one number a corpus; () is 1 for all", resume=ALLOWED
    )
    train_temperature: float = spec(
        1.0,
        "T of several corpora: one of n lines is visited as if it had n^(1/T), and the largest as it is; 1 is off, 5 "
        "visits small ones often (Arivazhagan et al. 2019)",
        rule=("must be at least 1", lambda value: value >= 1),
        resume=ALLOWED,
    )
    train_example_weights: tuple[str, ...] = spec(
        (), 'a file a corpus ("" for none): the weight of each line in the loss', resume=ALLOWED
    )
    train_alignments: tuple[str, ...] = spec(
        (),
        'of the loss guided_alignment: a file a corpus ("" for none) of links of words, 0-0 1-2, as fast_align writes',
        resume=ALLOWED,
    )
    dev_source: tuple[str, ...] = spec(
        (), "text that the best checkpoint is chosen on; of several, by the mean of their BLEU", resume=ALLOWED
    )
    dev_target: tuple[str, ...] = spec(
        (),
        "its translation; several references with commas, the dev loss is that of the first; () where each of "
        "dev_source holds both sides",
        resume=ALLOWED,
    )
    dev_languages: tuple[str, ...] = spec(
        (), "the target language of each dev set; () is one of each of train_languages, in their order", resume=ALLOWED
    )
    dev_pairs: int = spec(
        0,
        "without dev_source: so many sentences of the training text are the dev set of each language, by a hash of the "
        "source",
        not_negative=True,
        resume=ALLOWED,
    )
    test_pairs: int = spec(
        0, "with dev_pairs: so many more are a test set, written to <run_dir>/split", not_negative=True, resume=ALLOWED
    )
    bleu_tokenizer: str = spec(
        "", 'tokenizer of sacreBLEU, such as flores200 or char; "" is that of the target language', resume=ALLOWED
    )
    tokenizer: str = spec("unigram", "how text is cut into pieces", choices=("unigram", "bpe", "char", "byte", "word"))
    source_tokenizer_model: str = spec("", 'a SentencePiece model of your own; "" trains one')
    target_tokenizer_model: str = spec("", "the same of the target; for a joint vocabulary the same file")
    tokenizer_from: str = spec("", 'a run directory whose tokenizers are taken as they are; "" trains new ones')
    joint_vocabulary: bool = spec(True, "one vocabulary for both languages")
    source_vocab_size: int = spec(8000, "ids of the source, or of both where they are joint", positive=True)
    target_vocab_size: int = spec(8000, "ids of the target", positive=True)
    tokenizer_lines: int = spec(
        1_000_000, "lines of each side, evenly spaced, that a tokenizer is trained on at most", positive=True
    )
    character_coverage: float = spec(
        0.9995,
        "share of the characters of the text that have pieces; the rest are written, and trained, as bytes",
        rule=("must be above 0 and at most 1", lambda value: 0 < value <= 1),
        keeps_old_default=True,
    )
    byte_fallback: bool = spec(True, "write what has no piece as bytes, so that nothing is unknown")
    user_symbols: tuple[str, ...] = spec(
        (), "texts that are one piece each, whatever is around them, such as the tag of synthetic text"
    )
    placeholders: tuple[str, ...] = spec(
        (),
        "patterns of --protect, as tag, url or a regular expression: what both sides of a pair have becomes a symbol "
        "that the model learns to copy, and translations have again what it stands for",
    )
    annotated_terms: bool = spec(
        False,
        "the model learns from text with its terms beside them, which pipelines.augment --kind=terms makes, and reads "
        "those of a glossary so",
    )
    normalization: str = spec(
        "identity",
        "SentencePiece's normalization of text",
        choices=("identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf"),
    )
    sampling_alpha: float = spec(
        0.0, "subword regularisation (Kudo 2018), such as 0.1; 0 is off", not_negative=True, resume=ALLOWED
    )
    max_source_length: int = spec(128, "longer sources are left out of training", positive=True, resume=ALLOWED)
    max_target_length: int = spec(128, "longer targets are left out of training", positive=True, resume=ALLOWED)
    cache_dir: str = spec("", '"" is $XDG_CACHE_HOME/nmt_keras or ~/.cache/nmt_keras', resume=FREE)
    static_shapes: bool = spec(False, "pad to the bucket's boundary, as a TPU and XLA want it", resume=ALLOWED)
    num_buckets: int = spec(
        0,
        "if positive: so many length buckets at most, cut where static shapes pad least; 0 is a bucket for every two "
        "positions",
        not_negative=True,
        resume=ALLOWED,
    )
    on_findings: str = spec(
        "refuse",
        "what serious findings of the corpus doctor do; ignore never looks",
        choices=("refuse", "report", "ignore"),
        resume=FREE,
    )

    @property
    def target_languages(self) -> tuple[str, ...]:
        """The languages that a model of several translates into, in the order of the corpora; none for one."""
        return tuple(dict.fromkeys(self.train_languages))

    @property
    def languages_of_train(self) -> tuple[str, ...]:
        """The target language of each corpus."""
        return self.train_languages or (self.target_language,) * len(self.train_source)

    @property
    def languages_of_dev(self) -> tuple[str, ...]:
        """The target language of each dev set."""
        return self.dev_languages or self.target_languages or (self.target_language,) * (len(self.dev_source) or 1)
