"""The mistakes of docs/troubleshooting.md: each ends its command with the sentence that stands there, and code 2."""

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from mammojax import cli, launch, run_folder
from mammojax.train import loop
from tests import untrained

# ml_collections loads a config's file by a method that Python 3.12 removes.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "troubleshooting.md"
FILMS = [f"{patient}_{view}.png" for patient in "ABCDEF" for view in ("CC", "MLO")]
MISTAKES = [
    # The command line
    ("mammojax predcit", 'there is no command "predcit"; did you mean predict?'),
    ("mammojax check manifest.csv --ouput check.html", 'the argument "--ouput" is not known; did you mean --output?'),
    ("mammojax predict --run RUN --input A_CC.png", "the following arguments are required: --output"),
    ("mammojax manifest rsnaa --source empty --output new.csv", "invalid choice: 'rsnaa' (choose from …)"),
    (
        "mammojax prepare manifest --source manifest.csv --size 288",
        '"288" is not a size; write HEIGHTxWIDTH, such as 1152x896',
    ),
    ("mammojax compare RUN --sensitivity 90", '"90" is not a share; write a number from 0 to 1'),
    ("mammojax plan --data manifest.csv --device-memory 24", '"24" is no size of a memory; write such as 24GB'),
    ("mammojax check manifest.csv --output check.pdf", '"check.pdf" must end in .html'),
    ("mammojax predict --run RUN --input A_CC.png --output A_CC.png", '"A_CC.png" is a file; name a folder'),
    (
        "mammojax predict --run RUN --input A_CC.png --output A_CC.png/out",
        '"…": not a directory; a part of the path is a file; give another path.',
    ),
    # Configs and fields
    ("mammojax train quickstrat", 'there is no config "quickstrat"; did you mean quickstart?'),
    (
        "python launch.py --config=configs/quickstrat.py",
        'there is no config file "configs/quickstrat.py"; did you mean configs/quickstart.py?',
    ),
    ("python launch.py", "--config is missing; try --config configs/quickstart.py"),
    ("mammojax train exam:both", 'configs/exam.py has no row "both"; write view-wise, …'),
    (
        "mammojax train quickstart --config.stages.stage1.epochz=3",
        'the config has no field "epochz"; did you mean "epochs"?…',
    ),
    ("mammojax train quickstart epochs=3", "the argument epochs=3 is not understood; …"),
    ("mammojax train quickstart --epochs=3", "Unknown command line flag 'epochs'; …"),
    ("mammojax train quickstart --config.batch=many", 'flag --config.batch=many: "many" is no whole number; …'),
    ("mammojax train quickstart --config.batch=0", "config.batch is 0; 1 is the least."),
    ("mammojax train quickstart --config.calibration=20", "config.calibration is 20; write a share from 0 to below 1."),
    (
        "mammojax train quickstart --config.data.size=288",
        "config.data.size is (288,); write HEIGHTxWIDTH, such as 288x224.",
    ),
    (
        "mammojax train quickstart --config.data.size=4x4",
        "images of 4x4 or patches of 64 show nothing; 8 is the least.",
    ),
    (
        "mammojax train quickstart --config.data.crop=brest",
        'config.data.crop is "brest"; write none, breast or tissue.',
    ),
    ("mammojax train quickstart --config.monitor=acc", 'config.monitor is "acc"; write auc, accuracy, loss or last.'),
    (
        "mammojax train quickstart --config.augment.zoom=(1.2,0.8)",
        "config.augment.zoom is (1.2, 0.8); write the least and the greatest factor, …",
    ),
    (
        "mammojax train quickstart --config.stages.stage1.schedule=linear",
        'config.stages.stage1.schedule is "linear"; write "constant", "cosine" or "waves".',
    ),
    (
        "mammojax train quickstart --config.stages.stage1.learn=('hed/.*',)",
        'the pattern "hed/.*" matches no parameter; parameters are named like …',
    ),
    (
        "mammojax train quickstart --config.stages.stage1.learn=('(head',)",
        '"(head" is no regular expression (…); correct it.',
    ),
    (
        "mammojax train quickstart --config.model.head=512-512",
        "config.model.head: '512-512' in '512-512' is no block; …",
    ),
    (
        "mammojax train quickstart --config.model.dtype=float8",
        "config.model.dtype='float8' is unknown; use float32 or bfloat16.",
    ),
    ("mammojax train quickstart --config.model.task=wole", 'config.model.task="wole" is unknown; use patch, whole, …'),
    (
        "mammojax train quickstart --config.loss=mine:loss",
        'config.loss: "mine" cannot be imported (…); put its folder on PYTHONPATH.',
    ),
    # Several processes
    (
        "mammojax train quickstart --num_processes=2 --process_id=0",
        "--coordinator is missing; give --coordinator, --num_processes, --process_id together, …",
    ),
    (
        "mammojax train quickstart --coordinator=node001 --num_processes=2 --process_id=0",
        '--coordinator="node001" is no HOST:PORT; write for example node001:9876.',
    ),
    (
        "mammojax train quickstart --coordinator=node001:9876 --num_processes=2 --process_id=2",
        "--process_id=2 is not one of the 2 of --num_processes, 0 to 1.",
    ),
    # Where a run starts and where it goes
    (
        "mammojax train quickstart --config.init_from=nowhere",
        'config.init_from: "nowhere" is not a run folder; name a finished run\'s --workdir.',
    ),
    (
        "mammojax train quickstart --config.init_from=EXAMS",
        'config.init_from: "EXAMS" is a run of task "exam", …; name a run of task patch or whole.',
    ),
    (
        "mammojax train quickstart --config.model.pretrained=nowhere.pth",
        'there is no file "nowhere.pth"; give a Keras, torch or safetensors file.',
    ),
    (
        "mammojax train quickstart --config.model.trunk=vgg16",
        "config.patch.model.trunk is resnet50 and config.model.trunk vgg16; set both, …",
    ),
    ("mammojax train quickstart --workdir=RUN", '"RUN" holds a run of another config: …; give another --workdir.'),
    (
        "mammojax train quickstart --workdir=locked",
        '"locked" is in use by another run; wait for it or give another --workdir.',
    ),
    (
        "mammojax train quickstart --config.extend=True",
        "config.extend goes on with a run; name its folder: --workdir DIR",
    ),
    ("mammojax train quickstart --workdir=A_CC.png", '"A_CC.png": file exists; it is a file; give another path.'),
    # Tables of images
    (
        "mammojax check manifst.csv",
        '"manifst.csv": there is no such file or folder; did you mean "manifest.csv"?',
    ),
    (
        "mammojax check nowhere.csv",
        '"nowhere.csv": there is no such file or folder; give a manifest, a folder or an image.',
    ),
    ("mammojax check no_labels.csv", "no_labels.csv: the column pathology is missing; docs/data.md lists the columns."),
    ("mammojax check mistyped.csv", 'mistyped.csv: the column "patholgy" is not known: did you mean pathology? …'),
    ("mammojax check twice.csv", 'twice.csv: two columns are called "pathology"; rename or remove one.'),
    ("mammojax check latin.csv", "latin.csv: it is no CSV in UTF-8; save it as one, separated by commas."),
    ("mammojax check manifest.xlsx", "manifest.xlsx: it is a spreadsheet, which is not read; save it as CSV (UTF-8)."),
    (
        "mammojax check words.csv",
        'words.csv: no row can be used; …pathology is "1"; … or say by a map (1=…) what it is…',
    ),
    (
        "mammojax check moved.csv",
        "moved.csv: no row can be used; …the file does not exist; paths are relative to the table's folder.",
    ),
    (
        "mammojax check words.csv --map 0:BENIGN",
        'the map "0:BENIGN" has the part "0:BENIGN"; write such as 0=BENIGN,1=MALIGNANT.',
    ),
    (
        "mammojax finetune RUN --data two_splits.csv --plan-only",
        "the manifest's split column puts one patient in train and test (…); give all images of a patient the same …",
    ),
    (
        "mammojax finetune RUN --data half_split.csv --plan-only",
        "the manifest's split column is filled for some patients only; fill it for all or leave it empty.",
    ),
    (
        "mammojax finetune RUN --data with_split.csv --folds 3",
        "the manifest's split column is filled; leave it empty, or leave out --folds.",
    ),
    (
        "mammojax finetune RUN --data manifest.csv --folds 50",
        "50 folds need as many patients with a malignant image, …; there are 3 and 3: take 3 or fewer.",
    ),
    (
        "mammojax finetune RUN --data benign.csv --plan-only",
        "All labelled images are not malignant, so nothing can be told apart.",
    ),
    (
        "mammojax plan --data manifest.csv --device-memory 8GB",
        "no lesion of the manifest is outlined, and a patch classifier learns from outlines; …",
    ),
    # Data sets
    ("mammojax train film", "the source of the data is empty; give the folder or manifest: --config.data.source=DIR."),
    (
        "mammojax prepare manifest --source nowhere.csv",
        'there is no manifest at "nowhere.csv"; give a CSV, or a folder with a manifest.csv.',
    ),
    (
        "mammojax train whole_resnet",
        "the data set cbis_ddsm/… is not prepared; run: mammojax prepare cbis_ddsm --source DIR …",
    ),
    (
        "mammojax prepare manifest --source manifest.csv --kinds wholes",
        'the kind "wholes" is unknown; write whole, patches_s10, …',
    ),
    (
        "mammojax prepare manifest --source manifest.csv --split official",
        'manifest has no split "official"; write shen or all, for CBIS-DDSM official as well.',
    ),
    (
        "mammojax manifest rsna --source empty --output new.csv",
        "train.csv is not in the source folder; give the folder of the whole download.",
    ),
    (
        "mammojax manifest folder --source empty --output new.csv",
        "no mammogram is below the source folder; give the folder of DICOMs or images.",
    ),
    (
        "mammojax predict --run RUN --input films.zip --output out",
        "films.zip: the .zip is broken (BadZipFile); copy it again.",
    ),
    (
        "mammojax predict --run RUN --input films.zip --output out --beam-runner DirectRunner",
        "Beam's workers see no .zip that is unpacked here; unpack it and give the folder.",
    ),
    # Finished runs
    (
        "mammojax predict --run RUNN --input A_CC.png --output out",
        '"RUNN" is not a run folder: it has no config.json; did you mean "RUN"?',
    ),
    (
        "mammojax predict --run nowhere --input A_CC.png --output out",
        '"nowhere" is not a run folder: it has no config.json; name the --workdir of a run.',
    ),
    (
        "mammojax predict --run begun --input A_CC.png --output out",
        '"begun" holds no trained weights (checkpoints/best); name the folder of a finished run.',
    ),
    (
        "mammojax predict --run damaged --input A_CC.png --output out",
        'the weights in "…" are damaged: …; copy the run folder again from where it is whole, …',
    ),
    (
        "mammojax predict --run cut_off --input A_CC.png --output out",
        '"cut_off/config.json" is damaged or no run\'s; copy the run folder again from where it is whole.',
    ),
    (
        "mammojax predict --run RUN/patch --input A_CC.png --output out",
        '"RUN/patch" is a patch classifier; give the run of a whole-image classifier.',
    ),
    (
        "mammojax predict --run RUN --run EXAMS --input A_CC.png --output out",
        '"EXAMS" is a network for exams; give only runs for images, or only such ones.',
    ),
    (
        "mammojax predict --run EXAMS --input A_CC.png --output out --tta flips",
        "flips are for whole-image runs; exams are predicted with --tta none or random10.",
    ),
    (
        "mammojax predict --run EXAMS --input A_CC.png --output out --overlays",
        "these exam networks take no heatmaps, which --overlays would draw; leave it out.",
    ),
    (
        "mammojax calibrate RUN",
        '"RUN" has no predictions/test_flips.csv; name the folder of a finished whole-image run.',
    ),
    ("mammojax compare scores.csv", "scores.csv: it has no column p_malignant; it needs image, p_malignant and label."),
    (
        "mammojax localise --run EXAMS",
        '"EXAMS" is a network for exams; localise needs the run of a whole-image or two-view classifier.',
    ),
    ("mammojax view RUN --blind A", "a blind reading has to be kept: name a folder with --mark."),
    ("mammojax view manifest.csv --port 99999", "port 99999 cannot be used (…); name another one with --port."),
]


def _table(head: str, *cells: Callable[[str], str]) -> str:
    """A manifest of the films with further columns."""
    rows = [",".join((film, film[0], "L", film[2:-4], *(cell(film) for cell in cells))) for film in FILMS]
    return "\n".join([f"image,patient_id,laterality,view,{head}", *rows, ""])


def _word(film: str) -> str:
    return "MALIGNANT" if film[0] in "ACE" else "BENIGN"


def _write_tables(folder: Path) -> None:
    tables = {
        "manifest": _table("pathology", _word),
        "mistyped": _table("patholgy", _word),
        "twice": _table("pathology,pathology", _word, _word),
        "words": _table("pathology", lambda film: str(int(_word(film) == "MALIGNANT"))),
        "moved": _table("pathology", _word).replace(".png", ".dcm"),
        "benign": _table("pathology", lambda film: "BENIGN"),
        "two_splits": _table("pathology,split", _word, lambda film: "train" if film[2:4] == "CC" else "test"),
        "half_split": _table("pathology,split", _word, lambda film: "train" if film[0] in "AB" else ""),
        "with_split": _table("pathology,split", _word, lambda film: "test" if film[0] in "AB" else "train"),
        "no_labels": "image,laterality\nA_CC.png,L\n",
        "scores": "image,score,label\nA_CC.png,0.3,1\n",
    }
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text)
    (folder / "latin.csv").write_bytes("image,pathology\nbröst.dcm,BENIGN\n".encode("latin-1"))
    for name in ("manifest.xlsx", "films.zip"):
        (folder / name).write_bytes(b"PK\x03\x04")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of films, tables and runs, whole and damaged."""
    folder = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    for film in FILMS:
        cv2.imwrite(str(folder / film), rng.integers(0, 65536, (120, 80), np.uint16))
    _write_tables(folder)
    for name in ("empty", "begun", "locked"):
        (folder / name).mkdir()
    run = untrained.whole(folder / "RUN")
    untrained.exams(folder / "EXAMS")
    shutil.copy(run / "config.json", folder / "begun")
    for name in ("damaged", "cut_off"):
        shutil.copytree(run, folder / name)
    weights = [path for path in (folder / "damaged" / "checkpoints").rglob("*") if path.is_file()]
    largest = max(weights, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-40])
    (folder / "cut_off" / "config.json").write_text('{"config": {')
    with run_folder.lock(folder / "locked"):
        yield folder


@pytest.fixture
def in_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in the folder; no config is known yet, and nothing may train."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(place))
    fresh = flags.FlagValues()
    config = config_flags.DEFINE_config_file("config", None, "", flag_values=fresh, lock_config=True)
    workdir = flags.DEFINE_string("workdir", None, "", flag_values=fresh)
    monkeypatch.setattr(flags, "FLAGS", fresh)
    monkeypatch.setattr(launch, "CONFIG", config)
    monkeypatch.setattr(launch, "WORKDIR", workdir)
    monkeypatch.setattr(launch, "COORDINATOR", flags.DEFINE_string("coordinator", None, "", flag_values=fresh))
    for name in ("num_processes", "process_id"):
        monkeypatch.setattr(launch, name.upper(), flags.DEFINE_integer(name, None, "", flag_values=fresh))
    monkeypatch.setattr(loop, "train", lambda *_: pytest.fail("it was not refused"))


@pytest.mark.usefixtures("in_place")
@pytest.mark.parametrize(("line", "says"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_ends_with_its_sentence(
    line: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = shlex.split(line.replace("('", "\"('").replace("',)", "',)\""))
    monkeypatch.setattr(sys, "argv", argv)
    try:
        code = cli.main(argv[1:]) if argv[0] == "mammojax" else launch.launch(argv[1:])
    except SystemExit as ended:  # argparse shows the usage of the command before its sentence
        code = ended.code
    *usage, sentence = capsys.readouterr().err.splitlines()
    assert code == 2
    assert not [part for part in usage if not part.startswith(("usage:", " "))]
    pattern = ".*".join(re.escape(part) for part in says.split("…"))
    assert re.fullmatch(rf"(mammojax|launch\.py)[^:]*: (error: |argument [-\w]+: |config[\w.]+: )*{pattern}", sentence)


def test_the_page_lists_these_mistakes_and_no_other() -> None:
    listed = re.findall(r"^\| `(.*?)` \| \S.* \|$", PAGE.read_text(), flags=re.MULTILINE)
    assert listed == [says for _, says in MISTAKES]
    assert len(listed) == len(set(listed)) >= 50
