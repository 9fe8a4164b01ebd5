"""A phantom of exams, and runs of a tiny network on it."""

import csv
import json
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mammojax.data import dataset
from mammojax.data.exams import exams_of, write_heatmaps
from mammojax.data.prepare import prepare
from mammojax.data.recipe import Recipe
from mammojax.evaluate import table
from mammojax.models import multi_view
from mammojax.train.checkpoint import save_best
from mammojax.vocabulary import LABELS, VIEWS
from tests.random_variables import random_variables

SIZES = {"CC": (96, 64), "MLO": (112, 64)}
PHANTOM = {"exams": 60, "seed": 0, "contrast": 1.0}
HEATMAPS = "0123456789abcdef"


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> dataset.Prepared:
    """A phantom whose test split has 15 exams, five of them with outlined lesions."""
    folder = tmp_path_factory.mktemp("data")
    (path,) = prepare(Recipe("phantom_exams", "exams", folder, exams=PHANTOM["exams"], iterations=10))
    return dataset.Prepared(path)


@pytest.fixture(scope="session")
def films(finished: Path) -> list[Path]:
    """Full phantom mammograms, in DICOM."""
    return sorted(p for p in (finished.parent / "data").rglob("*.dcm") if p.stat().st_size > 100_000)[:5]


def exam_run(folder: Path, data: dataset.Prepared, heatmaps: bool = False, target: str = "cancer") -> Path:
    """A run of a tiny network: what it says of the test exams is made up, higher for what they have."""
    config = ConfigDict(
        {
            "row": "", "seed": 0, "bootstrap_runs": 100,
            "data": {"name": "phantom_exams", "kind": "exams", "data_dir": str(data.path.parents[2]), "source": "",
                     "split": "shen", "seed": 0, "patch_size": 224, "threshold": 0, "iterations": 10},
            "phantom": PHANTOM,
            "patch_run": "/secret/patch" if heatmaps else "",
            "model": {"task": "exam", "join": "view-wise", "angles": ("CC", "MLO"), "tie": "sides", "target": target,
                      "width": 2, "blocks": (1, 1, 1, 1, 1), "padding": "paper", "noise": 0.01,
                      "channels": 3 if heatmaps else 1, "dtype": "float32"},
            "exam": {"sizes": SIZES, "noise": 5, "random": "exam", "heatmaps": ("benign", "malignant"), "patch": 48,
                     "stride": 13},
        }
    )  # fmt: skip
    network = multi_view.build(config.model)
    channels = config.model.channels
    images = {view: jax.ShapeDtypeStruct((1, *SIZES[view[2:]], channels), jnp.float32) for view in VIEWS}
    save_best(folder, random_variables(network, images))
    facts = data.facts | ({"heatmaps": HEATMAPS} if heatmaps else {})
    (folder / "config.json").write_text(
        json.dumps({"config": json.loads(config.to_json_best_effort()), "facts": facts})
    )
    (folder / "predictions").mkdir()
    rng = np.random.default_rng(0)
    for name in ("test", "test_random10"):
        with (folder / "predictions" / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*table.BREAST_COLUMNS, "biopsied"])
            for exam in exams_of(data, "test"):
                for side, breast in (("L", "left"), ("R", "right")):
                    label = [exam.label[LABELS.index(f"{breast}_{f}")] for f in ("benign", "malignant")]
                    score = 0.8 * rng.random(2) + 0.2 * np.array(label)
                    ids = (exam.exam_id, exam.patient_id, side, "CC+MLO")
                    writer.writerow([*ids, *score, *label, int(any(label))])
    if heatmaps:
        out = data.path / "heatmaps" / f"{HEATMAPS}_p48s13" / "test"
        out.mkdir(parents=True, exist_ok=True)
        for k, example in enumerate(data.source("test")):  # blurred lesions: malignant first
            blurred = [cv2.GaussianBlur((example["masks"][..., 0] == v).astype(np.float32), (0, 0), 7) for v in (2, 1)]
            write_heatmaps(out / f"{k}.png", np.stack(blurred, axis=-1))
    return folder
