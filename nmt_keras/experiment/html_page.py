"""Pages for a browser that need no network: their skeleton, tables and marks."""

import difflib
import html
from collections.abc import Sequence

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --mark: #e8a33d66; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
.wide + .wide { margin-top: 1.2rem; }
table { border-collapse: collapse; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child, td.text { text-align: left; } td.best { font-weight: 600; }
.note { opacity: .75; font-size: .9rem; overflow-wrap: anywhere; }
mark { background: var(--mark); color: inherit; border-radius: .15rem; }
section.sentence { border-top: 1px solid var(--line); padding: .6rem 0; }
section.sentence dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .15rem 1rem; }
section.sentence dl { margin: 0; }
dt { opacity: .75; overflow-wrap: anywhere; } dd { margin: 0; overflow-wrap: anywhere; }
"""


def page(title: str, parts: Sequence[str], style: str = "") -> str:
    """A whole page: a title, which is text, and parts of its body, which are HTML. `style` is more of its CSS."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def table(head: str, rows: Sequence[str]) -> str:
    """A table that scrolls where the page is narrow: the cells of its head, and its rows, all HTML."""
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def sentence(about: str, rows: Sequence[tuple[str, str, str]]) -> str:
    """One sentence and what was made of it: of each a name, which is text, a text, which is HTML, and the code of its
    language."""
    items = "".join(f"<dt>{html.escape(name)}</dt><dd{in_language(code)}>{text}</dd>" for name, text, code in rows)
    return f"<section class=sentence><p class=note>{html.escape(about)}</p><dl>{items}</dl></section>"


def in_language(code: str) -> str:
    """The attributes of an element whose text is in a language, which browsers choose fonts, voices and hyphens by, and
    is written from left to right or from right to left as it needs; a code such as zho_Hans, or ""."""
    return f' lang="{html.escape(code.replace("_", "-"))}" dir=auto' if code else " dir=auto"


def marked(text: str, baseline: str) -> str:
    """A text with the words that another one does not have there marked; characters where neither has a space."""
    separator = " " if " " in text.strip() or " " in baseline.strip() else ""
    words, others = (each.split(" ") if separator else list(each) for each in (text, baseline))
    parts = []
    for kind, _, _, start, stop in difflib.SequenceMatcher(None, others, words, autojunk=False).get_opcodes():
        if start < stop:
            part = html.escape(separator.join(words[start:stop]))
            parts.append(part if kind == "equal" else f"<mark>{part}</mark>")
    return separator.join(parts)
