"""`mammojax manifest`: what a reader found is what the manifest says, and `prepare` takes it."""

import zipfile
from pathlib import Path

import pytest

from mammojax import cli
from mammojax.data import cbis_ddsm, manifest, manifest_writer, outline
from mammojax.data.dataset import Prepared
from mammojax.data.manifest import Image, Lesion, Table
from mammojax.data.prepare import prepare
from mammojax.data.recipe import Recipe
from tests.data import small


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    box, points = outline.box(1, 2, 30, 40), ((1.0, 2.0), (30.0, 40.0), (5.0, 50.5))
    for name in ("in/a.dcm", "in/-b.dcm", "in/m.png", "in/c.dcm", "in/d.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    images = [
        Image("a", tmp_path / "in/a.dcm", "P1", "E1", "L", "CC", "MALIGNANT", density="C", split="train",
              lesions=(Lesion(tmp_path / "in/m.png", "BENIGN", "mass"), Lesion(None, "MALIGNANT", "", False, box),
                       Lesion(None, "BENIGN", "calcification", outline=points)),
              columns={"label_source": "biopsy", "vendor": "=Acme"}),
        Image("b", tmp_path / "in/-b.dcm", "=P2", "E2", "R", "MLO", "MALIGNANT", (Lesion(None, "BENIGN", "mass"),)),
        Image("c", tmp_path / "in/c.dcm", "P3", pathology="", lesions=(Lesion(None, "BENIGN", "mass", outline=box),)),
        Image("d", tmp_path / "in/d.dcm", "P4", pathology="NORMAL", horizontal_flip="NO"),
    ]  # fmt: skip
    manifest_writer.write(tmp_path / "out" / "m.csv", Table(images, [("x.dcm", "it is broken")]))
    read = manifest.read_manifest(tmp_path / "out" / "m.csv")
    assert read.rejected == []
    assert (tmp_path / "out" / "m_rejected.csv").read_text().split() == ["file,reason", "x.dcm,it", "is", "broken"]
    for before, after in zip(images, read.images, strict=True):
        for field in (
            "patient_id",
            "exam_id",
            "laterality",
            "view",
            "pathology",
            "density",
            "split",
            "horizontal_flip",
        ):
            assert getattr(after, field) == getattr(before, field), (before.image, field)
        assert after.path.samefile(before.path)
    first, second, third, _ = read.images
    assert [(x.pathology, x.abnormality, x.visible, x.outline) for x in first.lesions] == [
        ("BENIGN", "mass", True, ()), ("MALIGNANT", "", False, box), ("BENIGN", "calcification", True, points),
    ]  # fmt: skip
    assert first.lesions[0].mask.samefile(tmp_path / "in/m.png")
    assert (first.columns["vendor"], first.columns["label_source"]) == ("=Acme", "biopsy")
    assert second.findings == (("MALIGNANT", True), ("BENIGN", True))  # worse than its lesion: a row of its own
    assert (third.label, third.lesions) == (-1, ())


def test_cbis_ddsm_s_official_split(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = shared / "data" / "mias_as_cbis"
    command = ["manifest", "cbis_ddsm", "--source", str(source), "--output", str(tmp_path / "m.csv")]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "licence: CC BY 3.0" in printed
    assert "next: mammojax check" in printed
    rows = cbis_ddsm.read_rows(source)
    table = cbis_ddsm.read_tree(source, rows)
    parts = cbis_ddsm.splits(rows, table.images, "official", 0)
    read = manifest.read_manifest(tmp_path / "m.csv")
    assert not read.rejected
    assert {(i.patient_id, i.laterality, i.view, i.pathology, i.split) for i in read.images} == {
        (i.patient_id, i.laterality, i.view, i.pathology, parts[i.patient_id]) for i in table.images
    }
    assert {i.columns["data_set"] for i in read.images} == {"cbis_ddsm"}
    assert sum(len(i.lesions) for i in read.images) == len(rows)
    unbiopsied = {(row.patient, row.side, row.view) for row in rows} - {
        (row.patient, row.side, row.view) for row in rows if row.biopsied
    }
    of_readings = [i for i in read.images if i.columns["label_source"] == "reading"]
    assert {(i.patient_id, i.laterality, i.view) for i in of_readings} == unbiopsied
    assert cli.main([*command, "--split", "shen"]) == 0
    assert "no part of the split shen" in (tmp_path / "m_rejected.csv").read_text()


def _vindr(root: Path, exams: int) -> Path:
    lines = ["study_id,image_id,laterality,view_position,breast_birads,breast_density,split"]
    findings = ["image_id,finding_categories,finding_birads,xmin,ymin,xmax,ymax"]
    for exam in range(exams):
        for side in "LR":
            name = f"i{exam}{side}"
            birads = 5 if exam % 2 and side == "L" else 1
            part = "test" if exam >= exams - 4 else "training"
            lines.append(f"s{exam},{name},{side},CC,BI-RADS {birads},DENSITY B,{part}")
            if birads == 5:
                findings.append(f"{name},['Mass'],BI-RADS 5,20,30,50,70")
            small.dicom(root / f"images/s{exam}/{name}.dicom")
    small.table(root / "breast-level_annotations.csv", "\n".join(lines))
    small.table(root / "finding_annotations.csv", "\n".join(findings))
    return root


def test_vindr_from_download_to_prepared_data(tmp_path: Path) -> None:
    source = _vindr(tmp_path / "vindr", 14)
    assert cli.main(["manifest", "vindr", "--source", str(source), "--output", str(tmp_path / "m.csv")]) == 0
    recipe = Recipe("manifest", "whole", tmp_path / "data", tmp_path / "m.csv", size=small.SHAPE, patch_size=24)
    whole, patches = prepare(recipe, ("whole", "patches_s1"))
    data = Prepared(whole)
    parts = {split: {row["patient_id"] for row in data.table(split)} for split in manifest.SPLITS}
    assert parts["test"] == {"s10", "s11", "s12", "s13"}
    assert (len(parts["train"]), len(parts["val"])) == (8, 2)  # a tenth, at least one with and one without cancer
    example = next(e for e in data.source("test") if e["label"] == 1)
    assert (example["masks"][..., 0] == 2).sum() == 31 * 41  # the box, drawn
    assert Prepared(patches).facts["counts"]["test"]["malignant_mass"] == 2


def test_folds_are_manifests_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _vindr(tmp_path / "vindr", 8)
    arguments = ["manifest", "vindr", "--source", str(source), "--output", str(tmp_path / "m.csv"), "--folds", "4"]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.count("next: mammojax check") == 4
    tested = []
    for fold in range(4):
        images = manifest.read_manifest(tmp_path / "m_folds" / f"split_0_fold_{fold}.csv").images
        assert len(images) == 16
        assert any(image.lesions for image in images)
        tested += sorted({image.patient_id for image in images if image.split == "test"})
    assert sorted(tested) == sorted(f"s{k}" for k in range(8))
    assert cli.main([*arguments, "--split", "official"]) == 2
    assert "--folds divides all patients anew" in capsys.readouterr().err


def test_inbreast_and_others_have_their_own_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _vindr(tmp_path / "vindr", 5)
    output = ["--source", str(source), "--output", str(tmp_path / "m.csv")]
    for arguments, words in (
        (["rsna", "--split", "official"], "train.csv is not in the source folder"),
        (["vindr", "--split", "shen"], 'vindr has no split "shen"; write official or none'),
        (["rsna", "--birads-3", "benign"], "--birads-3 is for vindr and embed"),
        (["vindr", "--labels", "x.csv"], "are for your own folder"),
        (["folder", "--split", "all"], "are for published data sets"),
    ):
        assert cli.main(["manifest", *arguments, *output]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "m.csv").exists()
    assert cli.main(["manifest", "vindr", "--split", "none", *output]) == 0
    assert "split" not in (tmp_path / "m.csv").read_text().splitlines()[0].split(",")
    assert cli.main(["manifest", "vindr", "--source", str(tmp_path / "x"), *output[2:]]) == 2


def test_a_zip_and_labels_become_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as file:
        for side in "LR":
            file.write(small.dicom(tmp_path / side, PatientID="Doe", ImageLaterality=side), f"s/{side}")
    labels = small.table(tmp_path / "labels.csv", "patient_id,laterality,pathology\nDoe,L,1\nDoe,R,0")
    arguments = ["--source", str(tmp_path / "study.zip"), "--output", str(tmp_path / "out" / "m.csv")]
    arguments += ["--labels", str(labels), "--map", "0=NORMAL,1=MALIGNANT"]
    for _ in range(2):  # the second call takes what the first has unpacked
        assert cli.main(["manifest", "folder", *arguments]) == 0
        assert "2 images of 1 patients\npathology: MALIGNANT 1, NORMAL 1\n" in capsys.readouterr().out
    images = manifest.read_manifest(tmp_path / "out" / "m.csv").images
    assert [(i.image, i.pathology) for i in images] == [("study/s/L", "MALIGNANT"), ("study/s/R", "NORMAL")]
    assert "Doe" not in (tmp_path / "out" / "m.csv").read_text()
