"""Languages: the one table of their codes, of the scripts they are written in, and of what scores need to know.

A language is given by its code of two or three letters (ISO 639-1, 639-2, 639-3), with or without a script (ISO 15924)
and a region: `zh`, `zho_Hans`, `zh-TW`, `sr-Latn`.
"""

from typing import NamedTuple

# Codes of one language, the first of which stands for the others: by the scripts it is written in.
_BY_SCRIPT = {
    "Latin": (
        "af,afr ak,aka,twi,tw ast ay,aym ban bem bm,bam br,bre bs,bos ca,cat ceb co,cos cs,ces,cze cy,cym,wel "
        "da,dan de,deu,ger ee,ewe en,eng eo,epo es,spa et,est,ekk eu,eus,baq fi,fin fil fj,fij fo,fao fr,fra,fre "
        "fur fy,fry ga,gle gd,gla gl,glg gn,grn,gug ha,hau haw hmn hr,hrv hsb ht,hat hu,hun ia,ina id,ind ig,ibo "
        "ilo is,isl,ice it,ita jv,jav kab kl,kal ki,kik kmb kg,kon la,lat lb,ltz lg,lug li,lim lmo ln,lin lt,lit "
        "ltg lua luo lus lv,lav,lvs mg,mlg,plt mi,mri,mao min ms,msa,may,zsm mt,mlt nb,nob nl,nld,dut nn,nno "
        "no,nor nso ny,nya oc,oci om,orm,gaz pag pap pcm pl,pol pt,por qu,que,quy rm,roh rn,run ro,ron,rum rw,kin "
        "sc,srd scn se,sme sg,sag sk,slk,slo sl,slv sm,smo sn,sna so,som sq,sqi,alb,als ss,ssw st,sot su,sun "
        "sv,swe sw,swa,swh szl tl,tgl tn,tsn to,ton tpi tr,tur ts,tso tum umb vec vi,vie war wo,wol xh,xho yo,yor "
        "zu,zul"
    ),
    "Cyrillic": "ba,bak be,bel bg,bul ce,che cv,chv mk,mkd,mac os,oss ru,rus sah tyv udm uk,ukr",
    "Greek": "el,ell,gre grc",
    "Arabic": "ar,ara,arb,arz,ary,apc,acm,ajp ckb fa,fas,per,pes,prs ps,pus,pbt sd,snd ur,urd",
    "Hebrew": "he,heb yi,yid,ydd",
    "Devanagari": "awa bho doi hi,hin hne kok,gom mag mai mr,mar ne,nep,npi sa,san",
    "Bengali": "as,asm bn,ben mni",
    "Gurmukhi Arabic": "pa,pan",
    "Gujarati": "gu,guj",
    "Oriya": "or,ori,ory",
    "Ol Chiki": "sat",
    "Tamil": "ta,tam",
    "Telugu": "te,tel",
    "Kannada": "kn,kan",
    "Malayalam": "ml,mal",
    "Sinhala": "si,sin",
    "Thaana": "dv,div",
    "Thai": "th,tha",
    "Lao": "lo,lao",
    "Tibetan": "bo,bod,tib dz,dzo",
    "Myanmar": "my,mya,bur shn",
    "Georgian": "ka,kat,geo",
    "Armenian": "hy,hye,arm",
    "Ethiopic": "am,amh ti,tir",
    "Khmer": "km,khm",
    "Han": "zh,zho,chi,cmn lzh wuu hak nan gan hsn cdo cjy cpx mnp czh czo yue",
    "Han Kana": "ja,jpn",
    "Hangul Han": "ko,kor",
    "Latin Cyrillic": "sr,srp sh,hbs tg,tgk",
    "Latin Cyrillic Arabic": "az,aze,azj,azb kk,kaz ku,kur,kmr ky,kir mn,mon,khk tk,tuk tt,tat,crh ug,uig "
    "uz,uzb,uzn ks,kas",
    "Latin Tifinagh": "ber,tzm,taq zgh",
}
_SCRIPT_CODES = {
    "latn": "Latin",
    "cyrl": "Cyrillic",
    "arab": "Arabic",
    "hans": "Han",
    "hant": "Han",
    "hani": "Han",
    "jpan": "Han Kana",
    "kore": "Hangul Han",
    "deva": "Devanagari",
    "grek": "Greek",
    "hebr": "Hebrew",
    "hang": "Hangul",
    "hira": "Kana",
    "kana": "Kana",
    "thai": "Thai",
    "laoo": "Lao",
    "tibt": "Tibetan",
    "khmr": "Khmer",
    "mymr": "Myanmar",
    "guru": "Gurmukhi",
    "gujr": "Gujarati",
    "orya": "Oriya",
    "olck": "Ol Chiki",
    "beng": "Bengali",
    "taml": "Tamil",
    "telu": "Telugu",
    "knda": "Kannada",
    "mlym": "Malayalam",
    "sinh": "Sinhala",
    "thaa": "Thaana",
    "ethi": "Ethiopic",
    "geor": "Georgian",
    "armn": "Armenian",
    "tfng": "Tifinagh",
}
_LANGUAGES = {
    code: (codes.split(",")[0], scripts)
    for scripts, languages in _BY_SCRIPT.items()
    for codes in languages.split()
    for code in codes.split(",")
}
_UNSPACED = ("Thai", "Lao", "Tibetan", "Khmer", "Myanmar")
_BLEU_TOKENIZERS = {"Han": "zh", "Han Kana": "ja-mecab", "Hangul Han": "ko-mecab"}
_DEFAULT_TOKENIZER = "13a"


# What people call columns of tables; codes are the first of each group above.
_ENGLISH_NAMES = {
    name: code
    for name, code in (
        pair.split(":")
        for pair in "arabic:ar bulgarian:bg chinese:zh croatian:hr czech:cs danish:da dutch:nl english:en estonian:et "
        "finnish:fi french:fr german:de greek:el hebrew:he hindi:hi hungarian:hu icelandic:is indonesian:id irish:ga "
        "italian:it japanese:ja korean:ko latvian:lv lithuanian:lt norwegian:no persian:fa polish:pl portuguese:pt "
        "romanian:ro russian:ru serbian:sr slovak:sk slovenian:sl spanish:es swahili:sw swedish:sv thai:th turkish:tr "
        "ukrainian:uk vietnamese:vi".split()
    )
}


class Language(NamedTuple):
    """What a tag says of a language."""

    tag: str  # as it was given
    code: str  # in lower case, the one that stands for others: zh of cmn_Hans
    scripts: tuple[str, ...]  # that it is written in; none where the tag is in no table
    is_known: bool
    bleu_tokenizer: str  # sacreBLEU's name
    is_asian: bool  # whether TER counts its characters

    def remark(self) -> str:
        """What a user should know of BLEU in this language; "" where there is nothing to say."""
        remedy = "give data.bleu_tokenizer (evaluate: --bleu_tokenizer), such as char or flores200"
        if set(self.scripts) & set(_UNSPACED):
            return (
                f"BLEU: {self.tag!r} is written without spaces between words, and tok:{self.bleu_tokenizer} takes what "
                f"is between spaces for words, so that BLEU is low and jumps: prefer chrF, or {remedy}"
            )
        if not self.is_known:
            return (
                f"BLEU: the language {self.tag!r} is in no table, so tok:{self.bleu_tokenizer} is used, which expects "
                f"spaces between words: give an ISO 639 code, or {remedy}"
            )
        return ""


def language_of(tag: str) -> Language:
    """Looks a tag up: see the module's docstring for what it may be. One that is in no table has no scripts."""
    code, *subtags = tag.lower().replace("_", "-").split("-")
    main, scripts = _LANGUAGES.get(code, (code, ""))
    given = [_SCRIPT_CODES[subtag] for subtag in subtags if subtag in _SCRIPT_CODES]
    is_unknown = any(len(subtag) == 4 and subtag.isalpha() and subtag not in _SCRIPT_CODES for subtag in subtags)
    scripts = given[0] if given else "" if is_unknown else scripts
    names = tuple(_names(scripts))
    tokenizer = _BLEU_TOKENIZERS.get(_script_of_scores(main, scripts), _DEFAULT_TOKENIZER)
    return Language(tag, main, names, code in _LANGUAGES or bool(given), tokenizer, tokenizer != _DEFAULT_TOKENIZER)


def code_of_name(name: str) -> str | None:
    """The code of a language by its English name, as in `german`; None where it is in no table."""
    return _ENGLISH_NAMES.get(name.strip().lower())


def _names(scripts: str) -> list[str]:
    """Names of scripts with spaces between them; one of them has a space of its own."""
    return [name.replace("_", " ") for name in scripts.replace("Ol Chiki", "Ol_Chiki").split()]


def _script_of_scores(code: str, scripts: str) -> str:
    """The scripts that choose BLEU's tokenizer.

    They are the language's own where it is Chinese, Japanese or Korean and `scripts` has Han, Kana or Hangul, so that
    Japanese given as Kana stays Japanese; otherwise `scripts`.
    """
    own = _LANGUAGES.get(code, (code, ""))[1]
    return own if own in _BLEU_TOKENIZERS and set(_names(scripts)) & {"Han", "Kana", "Hangul"} else scripts
