"""Files of every format, in the shapes that they have in real projects, and what is read of each.

python -m benchmarks.formats

The text is the quickstart's. Each file is written into a folder of its own and opened as `pipelines.start` opens it.
The table says how many pairs were read and what was left out, or why the file was refused; the last line is JSON.
"""

import csv
import gzip
import html
import io
import json
import lzma
import pathlib
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet
import zstandard
from absl import flags

from benchmarks import measure
from examples.quickstart.corpus import demo_corpus
from nmt_keras.data.sources import open_pair
from nmt_keras.errors import UserError
from pipelines import _cli

_LANGUAGES = ("en", "zh")
_XML = '<?xml version="1.0"?>'
_TMX = _XML + '<!DOCTYPE tmx SYSTEM "tmx14.dtd"><tmx version="1.4"><header srclang="en-US"/><body>{}</body></tmx>'
_XLIFF = (
    _XML + '<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2"><file source-language="en-US" '
    'target-language="zh-CN" datatype="plaintext" original="a"><body>{}</body></file></xliff>'
)
_XLIFF2 = (
    _XML + '<xliff version="2.0" srcLang="en" trgLang="zh" xmlns="urn:oasis:names:tc:xliff:document:2.0">'
    '<file id="f">{}</file></xliff>'
)
_PO = 'msgid ""\nmsgstr ""\n"Language: zh_CN\\n"\n"Content-Type: text/plain; charset=UTF-8\\n"\n\n'
_BOMB = _XML + '<!DOCTYPE tmx [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><tmx version="1.4"><body>&b;</body></tmx>'


class _File(NamedTuple):
    """Files, and how a user names them."""

    shape: str
    name: str  # one, or the source's and the target's with a comma
    content: dict[str, bytes | str]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_integer("pairs", 200, "Of each file.", 10, flag_values=values)


def _job(values: flags.FlagValues) -> int:
    pairs = demo_corpus(num_train=values.pairs).train
    with tempfile.TemporaryDirectory() as folder:
        files = [*_tables(pairs), *_of_translators(pairs), *_of_corpora(pairs), *_bad(pairs)]
        rows = [_read(file, pathlib.Path(folder) / str(number)) for number, file in enumerate(files)]
    print(measure.table(rows, list(rows[0])))
    print(json.dumps({"rows": rows}, ensure_ascii=False))
    return 0


def _read(file: _File, folder: pathlib.Path) -> dict[str, Any]:
    for name, content in file.content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source, _, target = file.name.partition(",")
    row = {"file": file.name, "shape": file.shape}
    try:
        texts = open_pair(str(folder / source), target and str(folder / target), _LANGUAGES, str(folder / "cache"))
    except UserError as error:
        return {**row, "pairs": "refused", "said": str(error).replace(f"{folder}/", "")}
    remarks = dict.fromkeys(remark for text in texts if text.origin for remark in text.origin.remarks)
    return {**row, "pairs": len(texts[0]), "said": "; ".join(remarks).replace(f"{folder}/", "")}


def _tables(pairs: Sequence[tuple[str, str]]) -> list[_File]:
    plain = "".join(f"{english}\t{chinese}\n" for english, chinese in pairs)
    named = "".join(f"{number}\t{chinese}\t{english}\n" for number, (english, chinese) in enumerate(pairs))
    quoted = io.StringIO()
    csv.writer(quoted).writerows(
        [("id", "en", "zh"), *((n, f'{en} "so", it says', zh) for n, (en, zh) in enumerate(pairs))]
    )
    nested = "".join(json.dumps({"translation": {"en": en, "zh": zh}}) + "\n" for en, zh in pairs)
    roles = "".join(json.dumps({"src": en, "tgt": zh}, ensure_ascii=False) + "\n" for en, zh in pairs)
    rows = pyarrow.Table.from_pylist([{"translation": {"en": en, "zh": zh}} for en, zh in pairs])
    parquet, arrow = io.BytesIO(), io.BytesIO()
    pyarrow.parquet.write_table(rows, parquet)
    with pyarrow.ipc.new_stream(arrow, rows.schema) as stream:
        stream.write_table(rows)
    saved = {
        "data-00000-of-00001.arrow": arrow.getvalue(),
        "state.json": '{"_data_files": [{"filename": ' '"data-00000-of-00001.arrow"}]}',
    }
    half = len(plain.split("\n")) // 2
    shards = {
        f"{n}.tsv": "".join(line + "\n" for line in part if line)
        for n, part in enumerate((plain.split("\n")[:half], plain.split("\n")[half:]))
    }
    return [
        _File("Tatoeba's export, two columns", "pairs.tsv", {"pairs.tsv": plain}),
        _File("named by language, target first", "named.tsv", {"named.tsv": f"id\tChinese\tEnglish\n{named}"}),
        _File("of a spreadsheet: BOM, CR LF", "sheet.tsv", {"sheet.tsv": "\ufeff" + plain.replace("\n", "\r\n")}),
        _File("RFC 4180, quotes and commas inside", "quoted.csv", {"quoted.csv": quoted.getvalue()}),
        _File("semicolons", "semi.csv", {"semi.csv": "en;zh\n" + "".join(f"{en};{zh}\n" for en, zh in pairs)}),
        _File("Hugging Face's translation objects", "nested.jsonl", {"nested.jsonl": nested}),
        _File("fields named by role", "roles.jsonl", {"roles.jsonl": roles}),
        _File("structs of languages", "pairs.parquet", {"pairs.parquet": parquet.getvalue()}),
        _File(
            "saved by `datasets`, one split",
            "saved",
            {"saved/dataset_dict.json": '{"splits": ["train"]}', **{f"saved/train/{k}": v for k, v in saved.items()}},
        ),
        _File("shards", "*.tsv", shards),
        _File("packed", "pairs.tsv.gz", {"pairs.tsv.gz": gzip.compress(plain.encode())}),
        _File("packed", "pairs.tsv.xz", {"pairs.tsv.xz": lzma.compress(plain.encode())}),
        _File("packed", "pairs.tsv.zst", {"pairs.tsv.zst": zstandard.compress(plain.encode())}),
    ]


def _of_translators(pairs: Sequence[tuple[str, str]]) -> list[_File]:
    escaped = [(html.escape(en, quote=False), html.escape(zh, quote=False)) for en, zh in pairs]
    memory = "".join(
        f'<tu><tuv xml:lang="en-US"><seg>{en} <bpt i="1">&lt;b&gt;</bpt>x<ept i="1">&lt;/b&gt;</ept></seg></tuv>'
        f'<tuv xml:lang="zh-CN"><seg>{zh}<ph x="1"/></seg></tuv></tu>\n'
        for en, zh in escaped
    )
    alone = '<tu><tuv xml:lang="en-US"><seg>of one language</seg></tuv></tu>'
    units = "".join(
        f'<trans-unit id="{n}"><source>{en}</source><target state="{"new" if n % 10 == 0 else "translated"}">{zh}'
        "</target></trans-unit>\n"
        for n, (en, zh) in enumerate(escaped)
    )
    marked = "".join(
        f'<group><trans-unit id="{n}"><source>{en}</source><seg-source><mrk mtype="seg" mid="1">{en}</mrk></seg-source>'
        f'<target><mrk mtype="seg" mid="1">{zh}</mrk></target></trans-unit></group>'
        for n, (en, zh) in enumerate(escaped)
    )
    segments = "".join(
        f'<unit id="{n}"><notes><note>a note</note></notes><segment state="{"initial" if n % 10 == 0 else "final"}">'
        f'<source>{en} <pc id="1">x</pc></source><target>{zh}</target></segment></unit>\n'
        for n, (en, zh) in enumerate(escaped)
    )
    entries = "".join(
        f'{"#, fuzzy" + chr(10) if n % 10 == 0 else ""}#: a.c:{n}\nmsgid {json.dumps(en)}\n'
        f"msgstr {json.dumps('' if n % 10 == 1 else zh, ensure_ascii=False)}\n\n"
        for n, (en, zh) in enumerate(pairs)
    )
    plural = 'msgid "%d dog"\nmsgid_plural "%d dogs"\nmsgstr[0] "%d \u53ea\u72d7"\n'
    return [
        _File("a memory with tags, a unit of one language", "memory.tmx", {"memory.tmx": _TMX.format(memory + alone)}),
        _File(
            "the same in UTF-16",
            "wide.tmx",
            {"wide.tmx": _TMX.format(memory).replace("?>", ' encoding="UTF-16"?>', 1).encode("utf-16")},
        ),
        _File("1.2, a tenth not translated", "file.xlf", {"file.xlf": _XLIFF.format(units)}),
        _File("1.2 with segments, as of SDL", "file.sdlxliff.xlf", {"file.sdlxliff.xlf": _XLIFF.format(marked)}),
        _File("2.0 with notes", "two.xliff", {"two.xliff": _XLIFF2.format(segments)}),
        _File("a tenth fuzzy, a tenth empty, a plural", "zh_CN.po", {"zh_CN.po": _PO + entries + plural}),
    ]


def _of_corpora(pairs: Sequence[tuple[str, str]]) -> list[_File]:
    english, chinese = ("".join(pair[side] + "\n" for pair in pairs) for side in (0, 1))
    zipped, nested = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (
            ("Books.en-zh.en", english),
            ("Books.en-zh.zh", chinese),
            ("Books.en-zh.xml", "<x/>"),
            ("README", "x"),
        ):
            archive.writestr(name, text)
    with zipfile.ZipFile(nested, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/._pairs.tsv", "x")
        archive.writestr("pairs.tsv", "".join(f"{en}\t{zh}\n" for en, zh in pairs))
    segments = [[f'<seg id="{n}">{html.escape(pair[side])}</seg>\n' for n, pair in enumerate(pairs)] for side in (0, 1)]
    source = f'<srcset setid="n" srclang="any"><doc docid="1">{"".join(segments[0])}</doc></srcset>'
    last_is_missing = "".join(segments[1][:-1])
    reference = f'<refset setid="n" srclang="any" trglang="zh"><doc docid="1">{last_is_missing}</doc></refset>'
    document = f'<src lang="en"><p>{"".join(segments[0])}</p></src>' + "".join(
        f'<ref lang="zh" translator="{who}"><p>{"".join(segments[1])}</p></ref>' for who in "AB"
    )
    wmt = f'{_XML}<dataset id="w"><doc origlang="en" id="d">{document}</doc></dataset>'
    return [
        _File("plain text", "train.en,train.zh", {"train.en": english, "train.zh": chinese}),
        _File("a stem of Moses", "corpus", {"corpus.en": english, "corpus.zh": chinese}),
        _File("of OPUS, with links in XML", "Books.zip", {"Books.zip": zipped.getvalue()}),
        _File("packed on a Mac", "pairs.zip", {"pairs.zip": nested.getvalue()}),
        _File("WMT to 2020, a reference is missing", "src.sgm,ref.sgm", {"src.sgm": source, "ref.sgm": reference}),
        _File("WMT since 2021, translator B", "wmt.xml#B", {"wmt.xml": wmt}),
    ]


def _bad(pairs: Sequence[tuple[str, str]]) -> list[_File]:
    table = "".join(f"{en}\t{zh}\n" for en, zh in pairs)
    climbs = io.BytesIO()
    with zipfile.ZipFile(climbs, "w") as archive:
        archive.writestr("../up.en", "x")
    claims = zstandard.ZstdCompressor().compress(b"x")[:4] + bytes([0xE0]) + (10 << 30).to_bytes(8, "little")
    memory = _TMX.format('<tu><tuv xml:lang="en"><seg>a</seg></tuv><tuv xml:lang="fr"><seg>b</seg></tuv></tu>')
    return [
        _File("truncated", "cut.tmx", {"cut.tmx": memory[:-30]}),
        _File("truncated", "cut.tsv.gz", {"cut.tsv.gz": gzip.compress(table.encode())[:-20]}),
        _File("truncated", "cut.parquet", {"cut.parquet": b"PAR1 and nothing more"}),
        _File("in another encoding", "gbk.tsv", {"gbk.tsv": table.encode("gbk")}),
        _File("a column is missing", "one.tsv", {"one.tsv": "".join(en + "\n" for en, _ in pairs)}),
        _File("no pairs", "empty.jsonl", {"empty.jsonl": ""}),
        _File("another language", "fr.tmx", {"fr.tmx": memory}),
        _File("a bomb of entities", "bomb.tmx", {"bomb.tmx": _BOMB}),
        _File("a name that climbs", "climbs.zip", {"climbs.zip": climbs.getvalue()}),
        _File("10 GB claimed by its header", "claims.tsv.zst", {"claims.tsv.zst": claims}),
    ]


if __name__ == "__main__":
    sys.exit(main())
