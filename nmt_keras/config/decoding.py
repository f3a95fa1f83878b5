"""The section `decoding` of an experiment."""

from dataclasses import dataclass

from nmt_keras.config.fields import FREE, spec


@dataclass
class DecodingConfig:
    """Search. A hypothesis of a source of S ids has at most min(max_length, max_length_ratio * S + 10) ids, and at
    least max(min_length, min_length_ratio * S) where these are fewer; EOS counts."""

    beam_size: int = spec(5, "beams; 1 is greedy", positive=True, resume=FREE)
    length_penalty: float = spec(
        1.2, "alpha of the formula; 0 ranks by log probability; see benchmarks/NOTES.md", not_negative=True, resume=FREE
    )
    length_penalty_kind: str = spec(
        "gnmt",
        "((5 + length) / 6)^alpha (Wu et al. 2016), or average: length^alpha",
        choices=("gnmt", "average"),
        resume=FREE,
    )
    coverage_penalty: float = spec(
        0.0,
        "beta of Wu et al. 2016, eq. 14: what source positions cost that no target position reads",
        not_negative=True,
        resume=FREE,
    )
    recombine: int = spec(
        0,
        "hypotheses of a beam that share so many last ids are one (dynamic programming); 0 is off",
        not_negative=True,
        resume=FREE,
    )
    beam_groups: int = spec(
        1, "groups of beams for diverse beam search (Vijayakumar et al. 2016); 1 is off", positive=True, resume=FREE
    )
    diversity_penalty: float = spec(
        0.5, "with groups: what an id costs for each group before that chose it", not_negative=True, resume=FREE
    )
    max_length: int = spec(200, "ids of a translation at most", positive=True, resume=FREE)
    max_length_ratio: float = spec(2.0, "the same for each id of the source, and 10 more", positive=True, resume=FREE)
    min_length: int = spec(0, "ids of a translation at least", not_negative=True, resume=FREE)
    min_length_ratio: float = spec(0.0, "the same for each id of the source", not_negative=True, resume=FREE)
    no_repeat_ngram: int = spec(0, "no so many ids in a row come twice; 0 is off", not_negative=True, resume=FREE)
    repetition_penalty: float = spec(
        1.0, "of logits of ids that came before (Keskar et al. 2019); 1 is off", positive=True, resume=FREE
    )
    shortlist: int = spec(
        0,
        "target ids that each source id proposes for the search; 0 searches the whole vocabulary",
        not_negative=True,
        resume=FREE,
    )
    banned_phrases: tuple[str, ...] = spec((), "texts that no search finds", resume=FREE)
    terms_beam_size: int = spec(
        10,
        "beams at least of a text whose translation must contain terms; 0 places none, for smaller exports",
        not_negative=True,
        resume=FREE,
    )
    max_beam_size: int = spec(
        16, "beams that a caller of an export may ask for, and so many hypotheses", positive=True, resume=FREE
    )
    max_source_length: int = spec(
        256, "ids of a source; a longer line is translated in part, with a warning", positive=True, resume=FREE
    )
    max_source_characters: int = spec(
        10_000, "characters of a source; of a longer text the beginning is translated", positive=True, resume=FREE
    )
    max_request_sentences: int = spec(
        256, "texts in a call of an export; those beyond are not translated", positive=True, resume=FREE
    )
    batch_sentences: int = spec(64, "texts that are searched at once", positive=True, resume=FREE)
    protect: tuple[str, ...] = spec(
        (),
        "patterns of --protect, as tag, url or a regular expression: what they find in a text stays as it is in the "
        "translation; by jobs and clients",
        resume=FREE,
    )
    split_sentences: bool = spec(False, "translate each sentence of a text, and join the translations", resume=FREE)
    replace_unknown: bool = spec(
        False, "put the source word that it reads most for an unknown one; word vocabularies alone", resume=FREE
    )

    @property
    def most_beams(self) -> int:
        """The most beams and samples of a text, whatever a caller asks for."""
        return max(self.max_beam_size, self.beam_size)
