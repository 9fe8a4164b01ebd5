"""The page of `mammojax predict`: what it counts is in the tables, and it names nobody."""

from pathlib import Path

from mammojax.evaluate import predict_report

ORIGIN = {"run": "qs", "model": "whole-image <classifier>", "trained_on": ["phantom"], "config_sha256": 64 * "a"}
REJECTED = [("Doe_Jane.dcm", 'pathology is "Doe"'), ("x.txt", "it is no mammogram"), ("y.txt", "it is no mammogram")]


def test_the_page_counts_and_names_nobody(tmp_path: Path) -> None:
    rows = [f"Doe_{k}.dcm,Doe{k},E{k},L,CC,,{k / 20},{'recall' if k > 14 else 'no recall'}" for k in range(20)]
    header = "image,patient_id,exam_id,laterality,view,label,p_malignant,decision"
    (tmp_path / "predictions.csv").write_text("\n".join([header, *rows]) + "\n")
    (tmp_path / "patients.csv").write_text("patient_id,exams,p_malignant\nDoe1,1,0.5\n")
    predict_report.write(tmp_path, REJECTED, [ORIGIN], "flips")
    page = (tmp_path / predict_report.FILE).read_text()
    for words in ("<b>20</b>", "<span>23</span>", "2: it is no mammogram", "1 patient<", "25 % of the images"):
        assert words in page
    assert '<td data-of="line">21</td><td data-of="p(malignant)">0.9500</td>' in page  # the last line of the table
    assert "whole-image &lt;classifier&gt;" in page
    assert "Doe" not in page


def test_breasts_of_exams_and_nothing_at_all(tmp_path: Path) -> None:
    (tmp_path / "breasts.csv").write_text("exam_id,patient_id,laterality,views,p_malignant\nE,P,L,CC+MLO,0.25\n")
    predict_report.write(tmp_path, [], [ORIGIN], "none")
    page = (tmp_path / predict_report.FILE).read_text()
    assert "breasts scored" in page
    assert "2, or more where" in page
    (tmp_path / "breasts.csv").write_text("exam_id,patient_id,laterality,views,p_malignant\n")
    predict_report.write(tmp_path, REJECTED, [ORIGIN], "none")
    assert "The highest scores" not in (tmp_path / predict_report.FILE).read_text()


def test_a_breast_without_a_score_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "breasts.csv").write_text(
        "exam_id,patient_id,laterality,views,p_benign,p_malignant\ne,p,L,CC+MLO,0.1,0.2\ne,p,R,CC,,\n"
    )
    predict_report.write(tmp_path, [], [ORIGIN], "none")
    page = (tmp_path / predict_report.FILE).read_text()
    assert "1 breast<" in page
    assert "3, or more" in page
