"""What is odd about the bytes of a text."""

from nmt_keras.data import encodings
from nmt_keras.data.corpus import TextFile
from nmt_keras.doctor.findings import Finding, severity_of

_SERIOUS_ODDITIES = ("invalid UTF-8",)
_SAMPLED_BYTES = 1 << 16
_FEW_SOUND = 0.1  # valid lines beyond ASCII for each broken one, at most, where a whole text has another encoding
_SAMPLED_LINES = 500


def encoding_findings(text: TextFile, language: str) -> list[Finding]:
    """Lists what is odd about the bytes of a text; first the encoding it looks like, if not UTF-8, and the remedy."""
    findings, broken, is_serious = [], [], False
    for finding in text.findings:
        severity = "note"
        if finding.kind in _SERIOUS_ODDITIES:
            severity = severity_of("encoding", finding.num_lines / len(text))
            is_serious = severity == "serious"
            broken = text.raw_lines([number - 1 for number in finding.lines[:_SAMPLED_LINES]])
        findings.append(
            Finding("encoding", severity, f"{text.path}: {finding}", finding.num_lines, finding.lines, finding.places)
        )
    broken = [line for line in broken if not encodings.is_cut_off(line.rstrip(b"\r\n"))]
    encoding = encodings.guess(text.beginning(_SAMPLED_BYTES), broken, language)
    if not encoding:
        return findings
    beyond_ascii = [line for line in text.raw_lines(range(min(len(text), _SAMPLED_LINES))) if not line.isascii()]
    known_as_broken = set(broken)
    sound = sum(line not in known_as_broken for line in beyond_ascii)
    if broken and "UTF-" not in encoding and sound > _FEW_SOUND * len(broken):
        what = (
            f"{text.path}: some lines are no UTF-8, and look like {encoding} beside others that are UTF-8: convert "
            "these lines alone, those of invalid UTF-8"
        )
        return [Finding("encoding", "serious" if is_serious else "warning", what, len(broken), []), *findings]
    what = (
        f"{text.path}: it is no UTF-8, and looks like {encoding}: convert it, {encodings.command(text.path, encoding)}"
    )
    return [Finding("encoding", "serious", what, len(broken), []), *findings]
