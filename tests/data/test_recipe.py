"""Folder names and commands follow from a recipe and must never change: data sets and scripts out there have them."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from mammojax import cli
from mammojax.data.recipe import Recipe
from mammojax.errors import BadDataset, BadManifest

# What the command wrote and said before there was a recipe.
TABLE: list[tuple[str, str, dict[str, Any], str, str]] = [
    (
        "cbis_ddsm", "whole", {"source": "S"},
        "whole_shen_1152x896_s0",
        "cbis_ddsm --source S --kinds whole --split shen --seed 0 --size 1152x896",
    ),
    (
        "cbis_ddsm", "whole", {},
        "whole_shen_1152x896_s0",
        "cbis_ddsm --source DIR --kinds whole --split shen --seed 0 --size 1152x896",
    ),
    (
        "cbis_ddsm", "patches_s10", {"source": "a b/S", "split": "official", "seed": 3},
        "patches_s10_official_1152x896_p224_s3",
        "cbis_ddsm --source 'a b/S' --kinds patches_s10 --split official --seed 3 --patch-size 224 --size "
        "1152x896",
    ),
    (
        "cbis_ddsm", "patches_s1",
        {"source": "S", "size": (384, 256),
         "patch_size": 64, "crop": "breast", "keep_aspect": True},
        "patches_s1_shen_384x256_p64_breast_aspect_s0",
        "cbis_ddsm --source S --kinds patches_s1 --split shen --seed 0 --patch-size 64 --size 384x256 "
        "--keep-aspect --crop breast",
    ),
    (
        "cbis_ddsm", "patches_s1g", {"source": "S", "split": "all", "patch_size": 112},
        "patches_s1g_all_1152x896_p112_s0",
        "cbis_ddsm --source S --kinds patches_s1g --split all --seed 0 --patch-size 112 --size 1152x896",
    ),
    (
        "inbreast", "patches_jittered", {"source": "S", "patch_size": 112, "context": 24},
        "patches_jittered_shen_1152x896_p112c24_s0",
        "inbreast --source S --kinds patches_jittered --split shen --seed 0 --patch-size 112 --context 24 "
        "--size 1152x896",
    ),
    (
        "inbreast", "patches_s10", {"source": "S", "one_type": True},
        "patches_s10_shen_1152x896_p224_onetype_s0",
        "inbreast --source S --kinds patches_s10 --split shen --seed 0 --patch-size 224 --one-type --size 1152x896",
    ),
    (
        "inbreast", "whole", {"source": "S", "crop": "breast"},
        "whole_shen_1152x896_breast_s0",
        "inbreast --source S --kinds whole --split shen --seed 0 --size 1152x896 --crop breast",
    ),
    (
        "inbreast", "whole", {"source": "S", "keep_aspect": True, "threshold": 5, "iterations": 7},
        "whole_shen_1152x896_aspect_s0",
        "inbreast --source S --kinds whole --split shen --seed 0 --size 1152x896 --keep-aspect",
    ),
    (
        "manifest", "whole", {"source": "m.csv"},
        "whole_shen_1152x896_s0_b49c334e",
        "manifest --source m.csv --kinds whole --split shen --seed 0 --size 1152x896",
    ),
    (
        "manifest", "patches_s10", {"source": "folder", "label_map": "0=BENIGN,1=MALIGNANT", "split": "all"},
        "patches_s10_all_1152x896_p224_s0_050de89c_mf07a9fc7",
        "manifest --source folder --kinds patches_s10 --split all --seed 0 --map 0=BENIGN,1=MALIGNANT "
        "--patch-size 224 --size 1152x896",
    ),
    (
        "manifest", "whole", {"source": "m.csv", "label_map": "1=malignant, 0=BENIGN"},
        "whole_shen_1152x896_s0_b49c334e_mf07a9fc7",
        "manifest --source m.csv --kinds whole --split shen --seed 0 --map '1=malignant, 0=BENIGN' --size "
        "1152x896",
    ),
    (
        "manifest", "exams", {"source": "m.csv", "patch_size": 256},
        "exams_shen_tautoi100_s0_b49c334e",
        "manifest --source m.csv --kinds exams --split shen --seed 0 --iterations 100",
    ),
    (
        "manifest", "exams", {"source": "m.csv", "threshold": 0, "iterations": 10, "label_map": "0=,x=NORMAL"},
        "exams_shen_t0i10_s0_b49c334e_m61132e3b",
        "manifest --source m.csv --kinds exams --split shen --seed 0 --map 0=,x=NORMAL --iterations 10 "
        "--threshold 0",
    ),
    (
        "manifest", "exam_patches", {"source": "m.csv", "patch_size": 256, "threshold": 14000},
        "exam_patches_shen_t14000i100_p256_s0_b49c334e",
        "manifest --source m.csv --kinds exam_patches --split shen --seed 0 --patch-size 256 --iterations 100"
        " --threshold 14000",
    ),
    (
        "phantom", "whole", {},
        "whole_shen_1152x896_s0_n340p0",
        "phantom --kinds whole --split shen --seed 0 --size 1152x896 --patients 340 --phantom-seed 0",
    ),
    (
        "phantom", "whole", {"source": "S"},
        "whole_shen_1152x896_s0_n340p0",
        "phantom --source S --kinds whole --split shen --seed 0 --size 1152x896 --patients 340 --phantom-seed"
        " 0",
    ),
    (
        "phantom", "whole",
        {"patients": 24, "phantom_seed": 2, "contrast": 0.5,
         "both_breasts": True, "digital": True, "size": (288, 224), "split": "all"},
        "whole_all_288x224_s0_n24p2c0.5bd",
        "phantom --kinds whole --split all --seed 0 --size 288x224 --patients 24 --phantom-seed 2 --contrast "
        "0.5 --both-breasts --digital",
    ),
    (
        "phantom", "patches_s10",
        {"patients": 340, "phantom_seed": 0, "contrast": 1.0,
         "both_breasts": False, "patch_size": 64, "split": "official"},
        "patches_s10_official_1152x896_p64_s0_n340p0",
        "phantom --kinds patches_s10 --split official --seed 0 --patch-size 64 --size 1152x896 --patients 340"
        " --phantom-seed 0",
    ),
    (
        "phantom", "exams", {"patients": 12, "contrast": 1.25},
        "exams_shen_t0i100_s0_n12p0c1.25",
        "phantom --kinds exams --split shen --seed 0 --iterations 100 --threshold 0 --patients 12 "
        "--phantom-seed 0 --contrast 1.25",
    ),
    (
        "phantom_exams", "exams", {},
        "exams_shen_t0i100_s0_e300p0",
        "phantom_exams --kinds exams --split shen --seed 0 --iterations 100 --threshold 0 --exams 300 "
        "--phantom-seed 0",
    ),
    (
        "phantom_exams", "exams",
        {"exams": 480, "first_exam": 0, "phantom_seed": 0, "contrast": 1.0,
         "patch_size": 48, "iterations": 10, "threshold": 0, "split": "all"},
        "exams_all_t0i10_s0_e480p0",
        "phantom_exams --kinds exams --split all --seed 0 --iterations 10 --threshold 0 --exams 480 "
        "--phantom-seed 0",
    ),
    (
        "phantom_exams", "exam_patches",
        {"exams": 40, "first_exam": 7, "phantom_seed": 5,
         "contrast": 0.25, "patch_size": 48, "iterations": 10, "seed": 4},
        "exam_patches_shen_t0i10_p48_s4_e40p5f7c0.25",
        "phantom_exams --kinds exam_patches --split shen --seed 4 --patch-size 48 --iterations 10 --threshold"
        " 0 --exams 40 --phantom-seed 5 --contrast 0.25 --first-exam 7",
    ),
    (
        "phantom_exams", "whole", {"exams": 40, "size": (64, 48)},
        "whole_shen_64x48_s0_e40p0",
        "phantom_exams --kinds whole --split shen --seed 0 --size 64x48 --exams 40 --phantom-seed 0",
    ),
    (
        "phantom_exams", "patches_s1g", {"source": "S", "threshold": 3},
        "patches_s1g_shen_1152x896_p224_s0_e300p0",
        "phantom_exams --source S --kinds patches_s1g --split shen --seed 0 --patch-size 224 --size 1152x896 "
        "--exams 300 --phantom-seed 0",
    ),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifests that the table names, in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.csv").write_text("image,pathology\na.png,BENIGN\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "manifest.csv").write_text("image,pathology\nb.png,1\n")


def _recipe(name: str, kind: str, fields: dict[str, Any]) -> Recipe:
    source = {"source": Path(fields["source"])} if "source" in fields else {}
    return Recipe(name, kind, Path("my data"), **fields | source)


@pytest.mark.parametrize(("name", "kind", "fields", "folder", "command"), TABLE)
def test_folder_and_command_are_as_ever(
    name: str, kind: str, fields: dict[str, Any], folder: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(name, kind, fields)
    assert recipe.path == Path("my data") / name / folder / "1.0.0"
    before, _, after = command.partition("--kinds")
    assert recipe.command == f"mammojax prepare {before}--data-dir 'my data' --kinds{after}"
    if recipe.source is None and not name.startswith("phantom"):
        return
    calls: list[tuple[Recipe, tuple[str, ...], int, None]] = []
    monkeypatch.setattr("mammojax.data.prepare.prepare", lambda *arguments: calls.append(arguments) or [])
    assert cli.main(shlex.split(recipe.command)[1:]) == 0
    ((commanded, kinds, _, _),) = calls
    assert kinds == (kind,)
    assert commanded.path == recipe.path


def test_a_run_s_recipe_is_its_config_s_whether_live_or_saved(tmp_path: Path) -> None:
    data = {
        "name": "phantom_exams", "kind": "exams", "data_dir": "", "source": "", "map": "", "split": "all", "seed": 3,
        "patch_size": 48, "threshold": None, "iterations": 10, "prepare": True, "workers": 2,
    }  # fmt: skip
    phantom = {"exams": 40, "first": 7, "seed": 5, "contrast": 0.5}
    live = Recipe.of_run(ConfigDict({"data": data, "phantom": phantom}), tmp_path)
    assert live == Recipe.of_run({"data": data, "phantom": phantom}, tmp_path)
    assert live.path == tmp_path / "data" / "phantom_exams" / "exams_all_t0i10_s3_e40p5f7c0.5" / "1.0.0"
    assert live.origin == tmp_path / "data" / "phantom_exams_source" / "e40p5f7c0.5"
    assert live.phantom_settings == {"exams": 40, "first": 7, "seed": 5, "contrast": 0.5}
    saved = data | {"name": "cbis_ddsm", "kind": "whole", "source": "~/S", "size": [96, 64], "crop": "breast"}
    recipe = Recipe.of_run({"data": saved | {"keep_aspect": True}}, tmp_path)
    assert recipe.size == (96, 64)
    assert recipe.framing.to_json() == {"size": (96, 64), "crop": "breast", "keep_aspect": True}
    assert recipe.source == Path.home() / "S"
    assert recipe.path.parent == Path.home() / "mammojax_data" / "cbis_ddsm" / "whole_all_96x64_breast_aspect_s3"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "x"}, 'the kind "x" is unknown; write whole, patches_s10, '),
        ({"split": "mine"}, 'cbis_ddsm has no split "mine"; write shen or all'),
        ({"name": "inbreast", "split": "official"}, 'inbreast has no split "official"'),
        ({"patch_size": 7}, "patches of 7 show nothing; 8 is the least"),
        ({"context": -8}, "data.context=-8 is for"),
        (
            {"kind": "patches_s10", "context": 8},
            'is for the kind "patches_jittered", and not negative; patches_s10 has 0',
        ),
        ({"kind": "exam_patches", "one_type": True}, "data.one_type is for patches of whole images; the classes of"),
        ({"size": (0, 9)}, "images of 0x9 or"),
        ({"kind": "exams", "threshold": -1}, "config.data.threshold must not be negative"),
        ({"kind": "exams", "iterations": 0}, "config.data.iterations must be at least 1"),
        ({"label_map": "0=BENIGN"}, "the map 0=BENIGN is for a manifest's words; cbis_ddsm has its own"),
        ({"name": "manifest", "source": Path("no.csv")}, 'there is no manifest at "no.csv"'),
        ({"name": "manifest"}, 'there is no manifest at "None"'),
    ],
)
def test_a_bad_recipe_is_one_sentence(fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match=words):
        _ = Recipe(**{"name": "cbis_ddsm", "kind": "whole", "data_dir": tmp_path} | fields).path


def test_a_map_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BadManifest, match='"CANCER"'):
        Recipe("manifest", "whole", tmp_path, label_map="1=CANCER")
