"""mini-MIAS (Suckling et al. 1994): 322 films as PGM of 1024 × 1024 pixels, 200 µm each, and Info.txt.

From its README: a line of Info.txt has the film's number, its tissue (F fatty, G fatty-glandular, D dense-glandular),
the class of abnormality (CALC, CIRC, SPIC, MISC, ARCH, ASYM, NORM), its severity (B, M), x and y of its centre and the
radius of a circle around it. y counts from the bottom left corner. Films come in pairs of one patient, the even number
is the left breast, the odd one the right. Where calcifications are spread, centre and radius are left out. All films
are MLO. The README does not say by what the severity was confirmed. Research use only, by its licence agreement.
"""

import re
from pathlib import Path

from mammojax.data import download, outline
from mammojax.data.manifest import Image, Lesion, Table, worst
from mammojax.errors import BadManifest

LICENCE = "research use only (MIAS licence agreement)"
SIDE = 1024  # pixels of each film: the lowest row is y = 0
_LINE = re.compile(
    r"\s*(mdb(\d{3}))\S*\s+([FGD])\s+(CALC|CIRC|SPIC|MISC|ARCH|ASYM|NORM)"
    r"(?:\s+([BM])(?:\s+(\d+)\s+(\d+)\s+(\d+))?)?"
)
_KINDS = {"CALC": "calcification", "CIRC": "mass", "SPIC": "mass", "MISC": "mass", "ARCH": "mass", "ASYM": "mass"}
_TISSUES = {"F": "fatty", "G": "glandular", "D": "dense"}


def read_table(source: Path) -> Table:
    """The films of Info.txt that have a file, each with its circles.

    Raises:
        BadManifest: Info.txt is absent or lists no film, or no film is there.
    """
    info = download.find(source, "Info.txt", "info.txt")
    films: dict[str, list[re.Match[str]]] = {}
    for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := _LINE.match(line):
            films.setdefault(match[1], []).append(match)
    if not films:
        raise BadManifest(f"{info.name} lists no film such as mdb001; get it again.")
    files, table = download.images(source), Table([])
    for name, lines in sorted(films.items()):
        if name not in files:
            table.rejected.append((name, f"{info.name} lists it, but there is no file of that name"))
            continue
        number = int(lines[0][2])
        patient = f"MIAS{(number + 1) // 2:03d}"
        table.images.append(
            Image(
                image=name, path=files[name], patient_id=patient, exam_id=patient, laterality="LR"[number % 2],
                view="MLO", pathology=worst(_pathology(line) for line in lines), density=_TISSUES[lines[0][3]],
                lesions=tuple(_lesion(line) for line in lines if line[5]),
                columns={"finding": lines[0][4] if lines[0][5] else "", "label_source": "not stated"},
            )
        )  # fmt: skip
    if not table.images:
        raise BadManifest(f"no film of {info.name} is below the source folder; put the .pgm files there.")
    return table


def _pathology(line: re.Match[str]) -> str:
    return {"B": "BENIGN", "M": "MALIGNANT"}.get(line[5] or "", "NORMAL" if line[4] == "NORM" else "")


def _lesion(line: re.Match[str]) -> Lesion:
    points = outline.circle(int(line[6]), SIDE - 1 - int(line[7]), int(line[8])) if line[6] else ()
    return Lesion(None, _pathology(line), _KINDS.get(line[4], ""), outline=points)
