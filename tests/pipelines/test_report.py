"""The report on a run."""

import json
import shutil

import pytest

from nmt_keras.experiment.curves import curves, rows_of
from pipelines import report
from tests.page_checks import Page


@pytest.fixture(scope="module")
def run(trained_copy, tmp_path_factory):
    """A copy of a trained run."""
    return shutil.copytree(trained_copy / "run", tmp_path_factory.mktemp("report") / "run<b>")


def _report(capsys, *arguments):
    status = report.main(list(arguments))
    printed, told = capsys.readouterr()
    return status, printed, told


def test_the_page_shows_the_run_and_needs_no_network(run, capsys):
    status, printed, told = _report(capsys, f"--run_dir={run}")
    assert status == 0 and "open " in told
    result = json.loads(printed)
    assert result["report"] == f"{run}/report.html" and result["bleu"] > 90 and result["sentences"] == 24
    text = (run / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(text) < 2_000_000 and "b" not in {tag for tag, _ in page.tags}
    for heading in ("Curves", "Quality", "Attention", "Text", "Settings that differ from the defaults", "Commands"):
        assert heading in page.text, heading
    assert "dev.src" in page.text and "training.max_steps" in page.text and f"{result['bleu']:.2f}" in page.text
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert "dev BLEU, by step" in [attributes["aria-label"] for attributes in pictures]
    assert [attributes for tag, attributes in page.tags if attributes.get("class") == "attention"]
    weights = [attributes["title"] for tag, attributes in page.tags if " reads " in attributes.get("title", "")]
    assert weights[0].endswith("%")
    languages = [attributes["lang"] for _, attributes in page.tags if attributes.get("dir") == "auto"]
    assert set(languages) == {"xx", "yy"} and len(languages) > 20
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_text_of_a_user_is_shown_as_text(run, tmp_path, capsys):
    (tmp_path / "src").write_text("a b <script>alert(1)</script>\nc d\n", encoding="utf-8")
    (tmp_path / "ref").write_text("a b <img src=x>\nc d\n", encoding="utf-8")
    given = [f"--source={tmp_path}/src", f"--reference={tmp_path}/ref", f"--output={tmp_path}/page.html"]
    status, printed, _ = _report(capsys, f"--run_dir={run}", *given)
    assert status == 0 and json.loads(printed)["sentences"] == 2
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "<script>alert(1)</script>" in page.text and "<img src=x>" in page.text


def test_a_run_whose_text_is_gone_and_that_is_not_done_has_a_report(run, tmp_path, capsys):
    bare = shutil.copytree(run, tmp_path / "bare")
    for name in ("run_card.json", "data_card.json", "metrics.jsonl"):
        (bare / name).unlink()
    status, printed, told = _report(capsys, f"--run_dir={bare}", f"--data_dir={tmp_path}/nowhere")
    assert status == 0 and json.loads(printed).keys() == {"report", "no_scores"}
    assert "warning: The dev set was not translated" in told and "Traceback" not in told
    page = Page((bare / "report.html").read_text(encoding="utf-8"))
    assert "The dev set was not translated" in page.text and "no metrics.jsonl yet" in page.text


def test_nothing_is_translated_for_no_sentences(run, tmp_path, capsys):
    status, printed, _ = _report(capsys, f"--run_dir={run}", "--sentences=0", f"--output={tmp_path}/page.html")
    assert status == 0 and "bleu" not in json.loads(printed)
    assert "None were asked for" in Page((tmp_path / "page.html").read_text(encoding="utf-8")).text


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--run_dir must be one run"),
        (["--run_dir=a,b"], "--run_dir must be one run"),
        (["--run_dir=nowhere"], "There is no folder nowhere; give the --run_dir of a training job"),
        (["--run_dir=RUN", "--reference=r"], "--reference is of --source"),
        (["--run_dir=RUN", "--source=nowhere", "--reference=r"], "nowhere"),
        (["--run_dir=RUN", "--output=file/page.html"], "file"),
        (["--run_dir=RUN", "--checkpoint=7"], "7"),
    ],
)
def test_a_mistake_is_one_line(run, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    status, printed, told = _report(capsys, *[argument.replace("RUN", str(run)) for argument in arguments])
    assert status == 2 and not printed
    assert message in told and "Traceback" not in told


def test_curves_are_thinned_and_damaged_rows_left_out(tmp_path):
    rows = [{"step": step, "loss": 1 / (1 + step), "dev_bleu_de": 1.0, "dev_bleu_fr": 2.0} for step in range(50_000)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": "x"}\n[]\n{"step": 7, "lo', encoding="utf-8")
    read = rows_of(tmp_path)
    assert read == rows and rows_of(tmp_path / "nowhere") == []
    loss, bleu = curves(read, best_step=40_000)
    assert len(loss) + len(bleu) < 200_000
    assert ">de<" in bleu and ">fr<" in bleu and curves([]) == []
    assert curves([{"step": 1, "gradient_norm": 0.0}, {"step": 2, "gradient_norm": float("nan")}])
