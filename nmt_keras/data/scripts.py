"""Which script a language is written in, and whether a line is."""

import re

_RANGES = {
    "Latin": "A-Za-z\u00aa\u00ba\u00c0-\u02af\u1e00-\u1eff\u2c60-\u2c7f\ua720-\ua7ff\uff21-\uff3a\uff41-\uff5a",
    "Cyrillic": "\u0400-\u052f\u1c80-\u1c8f\u2de0-\u2dff\ua640-\ua69f",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufeff",
    "Hebrew": "\u0590-\u05ff\ufb1d-\ufb4f",
    "Devanagari": "\u0900-\u097f\ua8e0-\ua8ff",
    "Bengali": "\u0980-\u09ff",
    "Gurmukhi": "\u0a00-\u0a7f",
    "Gujarati": "\u0a80-\u0aff",
    "Tamil": "\u0b80-\u0bff",
    "Telugu": "\u0c00-\u0c7f",
    "Kannada": "\u0c80-\u0cff",
    "Malayalam": "\u0d00-\u0d7f",
    "Sinhala": "\u0d80-\u0dff",
    "Thai": "\u0e00-\u0e7f",
    "Lao": "\u0e80-\u0eff",
    "Myanmar": "\u1000-\u109f",
    "Georgian": "\u10a0-\u10ff\u1c90-\u1cbf\u2d00-\u2d2f",
    "Armenian": "\u0530-\u058f",
    "Ethiopic": "\u1200-\u139f",
    "Khmer": "\u1780-\u17ff",
    "Han": "\u2e80-\u2fdf\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
    "Kana": "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f",
    "Hangul": "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff",
}
_LANGUAGES = {
    "Latin": "af bs ca cs cy da de en eo es et eu fi fr ga gl ha hr hu id ig is it la lb lt lv mg ms mt nb nl nn no "
    "pl pt ro rw sk sl so sq sv sw tl tr vi xh yo zu",
    "Cyrillic": "be bg mk ru uk",
    "Greek": "el",
    "Arabic": "ar fa ps ur",
    "Hebrew": "he yi",
    "Devanagari": "hi mr ne sa",
    "Bengali": "as bn",
    "Gurmukhi Arabic": "pa",
    "Gujarati": "gu",
    "Tamil": "ta",
    "Telugu": "te",
    "Kannada": "kn",
    "Malayalam": "ml",
    "Sinhala": "si",
    "Thai": "th",
    "Lao": "lo",
    "Myanmar": "my",
    "Georgian": "ka",
    "Armenian": "hy",
    "Ethiopic": "am ti",
    "Khmer": "km",
    "Han": "zh yue",
    "Han Kana": "ja",
    "Hangul Han": "ko",
    "Latin Cyrillic": "sr sh tg",
    "Latin Cyrillic Arabic": "az kk ku ky mn tk tt ug uz",
}
_SCRIPT_CODES = (  # ISO 15924
    "latn:Latin cyrl:Cyrillic arab:Arabic hans:Han hant:Han hani:Han deva:Devanagari grek:Greek hebr:Hebrew "
    "hang:Hangul thai:Thai guru:Gurmukhi beng:Bengali taml:Tamil telu:Telugu ethi:Ethiopic geor:Georgian "
    "armn:Armenian kana:Kana"
)
_ISO_639_3 = (
    "afr:af ara:ar arb:ar aze:az bel:be ben:bn bul:bg cat:ca ces:cs cze:cs cmn:zh chi:zh zho:zh cym:cy dan:da deu:de "
    "ger:de ell:el gre:el eng:en epo:eo est:et eus:eu fas:fa per:fa pes:fa fin:fi fra:fr fre:fr gle:ga glg:gl heb:he "
    "hin:hi hrv:hr hun:hu hye:hy ind:id isl:is ita:it jpn:ja kat:ka kaz:kk khm:km kor:ko kur:ku lao:lo lav:lv lit:lt "
    "mar:mr mkd:mk mlt:mt mya:my nep:ne nld:nl dut:nl nob:nb nor:no pan:pa pol:pl por:pt pus:ps ron:ro rum:ro rus:ru "
    "slk:sk slv:sl som:so spa:es sqi:sq srp:sr swa:sw swe:sv tam:ta tat:tt tel:te tgk:tg tgl:tl tha:th tur:tr uig:ug "
    "ukr:uk urd:ur uzb:uz vie:vi zsm:ms"
)
_SUBTAGS = dict(pair.split(":") for pair in _SCRIPT_CODES.split())
_ALIASES = dict(pair.split(":") for pair in _ISO_639_3.split())
_OF_LANGUAGE = {code: scripts for scripts, codes in _LANGUAGES.items() for code in codes.split()}
_WITHOUT_SPACES = re.compile(
    f"[{''.join(_RANGES[name] for name in ('Han', 'Kana', 'Thai', 'Lao', 'Khmer', 'Myanmar'))}]"
)
_MIN_LETTERS = 6  # one of a script without spaces, which is nearly a word, counts twice


class ScriptCheck:
    """Whether lines are written as a language is.

    Args:
        language: its code, of two or three letters, with or without a script, as in sr-Latn or zho_Hant. One that is
            not known is taken to be written in any way.
    """

    def __init__(self, language: str):
        code, *subtags = language.lower().replace("_", "-").split("-")
        scripts = [_SUBTAGS[subtag] for subtag in subtags if subtag in _SUBTAGS]
        self.scripts = scripts[0] if scripts else _OF_LANGUAGE.get(_ALIASES.get(code, code), "")
        ranges = "".join(_RANGES[name] for name in self.scripts.split())
        self._letters = re.compile(f"[{ranges}]") if ranges else None

    def is_foreign(self, line: str) -> bool:
        """Whether the line has letters, and most of them are of another script; a few letters say nothing."""
        if self._letters is None:
            return False
        own = len(self._letters.findall(line))
        if 2 * own >= len(line):
            return False
        letters = sum(map(str.isalpha, line))
        return 2 * own < letters and letters + len(_WITHOUT_SPACES.findall(line)) >= _MIN_LETTERS


def words(line: str) -> list[str]:
    """The words of a line, for statistics: between spaces, and single characters of scripts without spaces."""
    spaced = _WITHOUT_SPACES.sub(lambda match: f" {match[0]} ", line.casefold())
    return [
        word for part in spaced.split() if (word := part.strip(".,;:!?\"'()[]\u3002\uff0c\uff1f\uff01\u201c\u201d"))
    ]
