"""The arms of `python -m benchmarks film`: what each trains on a fold of the films, and how it scores the test images.

An arm's networks are those of configs/film.py with a change. A function of a `Fold` trains what the arm needs, in
folders that arms share, and writes the predictions of the fold's test images.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from ml_collections import ConfigDict
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from mammojax import run, run_folder, start, tasks
from mammojax.configs import exam, film, two_view
from mammojax.data import dataset, dicom, manifest, pipeline
from mammojax.evaluate import table, two_step
from mammojax.models import classifiers
from mammojax.tasks import images
from mammojax.train import loop, mesh
from mammojax.train.checkpoint import load_best, save_best

Key = tuple[int, int, int]
"""Split, seed, fold."""
Change = Callable[[ConfigDict, ConfigDict], None]
PATIENTS = 75
"""Training patients of a fold of mini-MIAS, for the arms with fewer."""


def name(*words: object) -> str:
    """A file name of words."""
    return "_".join(str(word).replace(", ", "_").replace(" ", "_") for word in words)


@dataclass(frozen=True)
class Fold:
    """One fold of an arm.

    Attributes:
        source: the manifest of the fold.
        key: its split, seed and fold.
        workdir: the folder of all runs.
        folder: the arm's own run folder, which gets predictions/test_flips.csv.
        change: of the configs of the whole-image network and its patch net; None: configs/film.py as it is.
        start: makes the run folder that the patch net starts from; None: ImageNet weights.
    """

    source: Path
    key: Key
    workdir: Path
    folder: Path
    change: Change | None = None
    start: Callable[["Fold", ConfigDict], Path] | None = None

    def configs(self) -> tuple[ConfigDict, ConfigDict]:
        """The configs of the whole-image network, without a start, and of its patch net."""
        config = film.get_config()
        config.source, config.data.data_dir = str(self.source), str(self.workdir / "data")
        config.seed, config.gallery = self.key[1], 0
        patch = start.part(config, "patch", self.workdir)
        patch.data.prepare, patch.model.pretrained = True, config.model.pretrained
        del config.patch
        if self.change:
            self.change(config, patch)
            for field in ("size", "patch_size", "context"):
                patch.data[field] = config.data[field]
        return config, patch

    def patches(self) -> Path:
        """The run folder of the patch net."""
        return self.workdir / name("patches", f"_{self.change.__name__}" if self.change else "", *self.key)

    def patch_net(self) -> Path:
        """The finished run of the patch net."""
        _, patch = self.configs()
        if self.start and not finished(self.patches()):
            patch.init_from, patch.model.pretrained = str(self.start(self, patch)), ""
        return finish(patch, self.patches())

    def end_to_end(self, folder: Path) -> Path:
        """The finished run of the whole-image network that starts from the patch net."""
        config, _ = self.configs()
        config.init_from, config.model.pretrained = str(self.patch_net()), ""
        return finish(config, folder)


def finished(folder: Path) -> bool:
    """Whether a run is finished in a folder."""
    return (folder / "metrics.json").is_file()


def finish(config: ConfigDict, folder: Path) -> Path:
    """Run a config in a folder, unless it is finished there."""
    if not finished(folder):
        run.run(config, folder)
    return folder


def write(folder: Path, scored: dict[str, Any], data: Any) -> None:
    """Write predictions/test_flips.csv of a fold's test images."""
    table.write_images(folder / "predictions" / "test_flips.csv", scored, data.table("test"), data.facts["classes"])


# Changes of the configs


def random(config: ConfigDict, patch: ConfigDict) -> None:
    """Random weights in the same recipe; their BatchNorm statistics are re-estimated, see `random_start`."""
    config.model.pretrained = patch.model.pretrained = ""


def beside(config: ConfigDict, patch: ConfigDict) -> None:
    """What lies beside the breast is kept."""
    config.data.crop = patch.data.crop = "breast"


def before(config: ConfigDict, patch: ConfigDict) -> None:
    """The recipe before this one: patches without context, and rates that begin at their height."""
    config.data.context, patch.model.window = 0, 0
    config.model.head = "heatmap4,max"
    patch.stages.stage1.warmup = config.stages.stage2.warmup = 0


def quarters(config: ConfigDict, patch: ConfigDict) -> None:
    """No change; the patch net has another start, `turned`."""


def of_phantom(config: ConfigDict, patch: ConfigDict) -> None:
    """No change; the patch net has another start, `from_phantom`."""


def strong(config: ConfigDict, patch: ConfigDict) -> None:
    """Stronger augmentation, photometric too; no copy is used twice."""
    patch.augment.update(rotation=45.0, zoom=(0.75, 1.33), shear=0.2, intensity=30.0, contrast=(0.7, 1.4))
    patch.stages.stage1.cache = 0


def lite2(config: ConfigDict, patch: ConfigDict) -> None:
    """The larger trunk."""
    late = (r"trunk/block([7-9]|1\d|2\d)/.*", "trunk/head_.*")
    for stage in (patch.stages.stage1, config.stages.stage2):
        stage.learn = (*(words for words in stage.learn if words not in film.LATE), *late)
        stage.slow = (*(words for words in stage.slow if words not in film.LATE), *late)
        stage.freeze = ("trunk/stem_.*", "trunk/block[0-6]/.*")  # Lite 2 has two blocks more up to a resolution of 1/8
    config.model.trunk = patch.model.trunk = "efficientnet_lite2"


def larger(config: ConfigDict, patch: ConfigDict) -> None:
    """Half as many pixels again along each axis; patches of about the same tissue."""
    config.data.update(size=(768, 432), patch_size=160, context=64)
    config.model.head, patch.model.window = "heatmap5,max", 5


def _fewer(share: int, config: ConfigDict, patch: ConfigDict) -> None:
    """A share of the training patients, in as many updates with as many augmented copies."""
    table_of = manifest.read_manifest(Path(config.source)).images
    train = [{"patient_id": i.patient_id, "label": str(i.label)} for i in table_of if i.split == "train"]
    rows = dataset.of_patients(train, PATIENTS // share, config.seed)
    patients = {train[k]["patient_id"] for k in rows}
    source = Path(config.source).with_name(f"{Path(config.source).stem}_{len(patients)}_patients_{config.seed}.csv")
    if not source.is_file():
        frame = pd.read_csv(config.source, dtype=str, keep_default_na=False)
        frame[(frame["split"] != "train") | frame["patient_id"].isin(patients)].to_csv(source, index=False)
    config.source = patch.data.source = str(source)
    for stage in (*config.stages.values(), *patch.stages.values()):
        stage.epochs *= share
        stage.cache *= share


def half(config: ConfigDict, patch: ConfigDict) -> None:
    """Half of the training patients."""
    _fewer(2, config, patch)


def quarter(config: ConfigDict, patch: ConfigDict) -> None:
    """A quarter of the training patients."""
    _fewer(4, config, patch)


def one_type(config: ConfigDict, patch: ConfigDict) -> None:
    """All lesions are masses: the patch net is not told which are calcifications."""
    config.data.one_type = patch.data.one_type = True


def digital(config: ConfigDict, patch: ConfigDict) -> None:
    """Digital mammograms of the phantom in place of films."""
    for part in (config, patch):
        part.data.update(name="phantom", split="official")
        with part.unlocked():
            part.phantom = ConfigDict({"patients": 100, "seed": part.seed, "contrast": 1.0, "digital": True})
    config.source = patch.data.source = ""


# Starts of the patch net


def random_start(fold: Fold, patch: ConfigDict) -> Path:
    """Random weights, whose statistics are those of the training patches."""
    folder = fold.workdir / name("start_random", *fold.key)
    if not (folder / "checkpoints").is_dir():
        folder.mkdir(exist_ok=True)
        patch = run.check(patch)
        data, task = run.dataset(patch, folder), tasks.of(patch.model.task)
        model = task.network(patch.model)
        variables = start.variables(patch, model, task.sizes(patch, patch.data), None)
        variables["batch_stats"] = _statistics(patch, variables, data)
        _save(folder, patch, data, variables)
    return folder


def turned(fold: Fold, patch: ConfigDict) -> Path:
    """ImageNet weights that then learned by how many quarters a patch of tissue is turned, without any label.

    Gidaris et al. 2018, "Unsupervised representation learning by predicting image rotations".
    """
    folder = fold.workdir / name("start_turned", *fold.key)
    if not (folder / "checkpoints").is_dir() or not (folder / "config.json").is_file():
        turning = folder / "turning"
        turning.mkdir(parents=True, exist_ok=True)
        patch = run.check(patch)
        patch.augment.update(flip_horizontal=False, flip_vertical=False, rotation=10.0)  # flips look like turns
        patch.balance_loss = False
        data, task = run.dataset(patch, folder), tasks.of(patch.model.task)
        model = task.network(patch.model)
        variables = start.variables(patch, model, task.sizes(patch, patch.data), None)
        batches = pipeline.train_batches(
            data.source("train"), batch=patch.batch, seed=patch.seed, mesh=mesh.data_mesh(patch.batch),
            only=np.flatnonzero(data.labels("train") == 0),
        )  # fmt: skip
        patch.stages.stage1.cache = 0  # a copy is turned anew in each epoch
        loop.train(patch, model, variables, batches, lambda _: {"loss": 0.0}, turning, _turned_loss(patch, data.facts))
        batches.close()
        learned = load_best(turning)
        learned["params"]["classifier"] = variables["params"]["classifier"]
        _save(folder, patch, data, learned)
    return folder


def _turned_loss(patch: ConfigDict, facts: dict[str, Any]) -> Callable[..., Any]:
    """The loss of the number of quarters by which each patch was turned."""
    of_patches = images.loss(patch, facts)

    def of_batch(batch: dict[str, jax.Array], key: jax.Array) -> Any:
        turns = jax.random.randint(jax.random.fold_in(key, 7), batch["label"].shape, 0, 4)
        quarters = [partial(jnp.rot90, k=k) for k in range(4)]
        patches = jax.vmap(lambda x, k: jax.lax.switch(k, quarters, x))(batch["image"], turns)
        return of_patches(batch | {"image": patches, "label": turns}, key)

    return of_batch


def from_phantom(fold: Fold, patch: ConfigDict) -> Path:
    """A patch net of the film-like phantom, which starts from ImageNet weights."""
    patch = patch.copy_and_resolve_references()
    with patch.unlocked():
        patch.data.update(name="phantom", source="", split="official")
        patch.phantom = ConfigDict({"patients": 200, "seed": patch.seed, "contrast": 1.0, "digital": False})
    return finish(patch, fold.workdir / name("patches of the phantom", fold.key[1]))


def _save(folder: Path, patch: ConfigDict, data: Any, variables: dict[str, Any]) -> None:
    """Make a folder a run of the patch net with these weights."""
    facts = tasks.of(patch.model.task).facts(patch, data, {})
    run_folder.write(folder, patch, facts | {"folder": data.path.parent.name})
    save_best(folder, variables)


def _statistics(config: ConfigDict, variables: dict[str, Any], data: Any) -> Any:
    """The BatchNorm statistics of random weights: a mean over the training images, where later batches count more."""
    settings = config.model.copy_and_resolve_references()
    settings.bn_momentum = 0.9  # a few dozen batches forget the start, 0 and 1
    model = tasks.of(config.model.task).network(settings)

    @jax.jit
    def moved(batch_stats: Any, pixels: jax.Array) -> Any:
        x = classifiers.as_input(pixels, data.facts["mean"], config.model.channels)
        return model.apply(
            variables | {"batch_stats": batch_stats}, x, train=True, mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )[1]  # fmt: skip

    batch_stats = variables["batch_stats"]
    for batch in _batches(data, "train", config.eval_batch):
        batch_stats = moved(batch_stats, batch["image"])["batch_stats"]
    return batch_stats


def _batches(data: Any, split: str, batch: int) -> Iterator[dict[str, Any]]:
    return iter(pipeline.eval_batches(data.source(split, masks=False), batch=batch))


# What an arm does with a fold


def slid(fold: Fold) -> None:
    """The patch net slid over the images."""
    config, _ = fold.configs()
    config.init_from, config.model.pretrained = str(fold.patch_net()), ""
    _score(fold.folder, config, Path(config.init_from), lambda fresh: fresh)


def _score(folder: Path, config: ConfigDict, begin: Path, weights: Callable[[Any], Any]) -> None:
    """Score the test images with `weights` of the variables that a network has at its start."""
    folder.mkdir(exist_ok=True)
    config = run.check(config)
    data, task = run.dataset(config, folder), tasks.of(config.model.task)
    facts = task.facts(config, data, {"init_from": begin})
    variables = weights(start.variables(config, task.network(config.model), task.sizes(config, config.data), begin))
    write(folder, task.score(config, data, facts, variables)(variables, "test", "flips"), data)


def trained(fold: Fold) -> None:
    """Then trained end to end."""
    fold.end_to_end(fold.folder)


def averaged(fold: Fold) -> None:
    """The mean of the weights of the networks of all seeds (Wortsman et al. 2022, "Model soups")."""
    split, _, k = fold.key
    runs = [path for path in sorted(fold.workdir.glob(name("end to end", split, "*", k))) if finished(path)]
    if len(runs) < 2:
        print(f"{fold.folder.name}: {len(runs)} seeds of this fold are trained end to end; two are the least")
        return
    mean = jax.tree.map(lambda *arrays: np.mean(arrays, axis=0), *map(load_best, runs))
    config, _ = fold.configs()
    config.init_from, config.model.pretrained = str(runs[0]), ""
    _score(fold.folder, config, runs[0], lambda _: mean)


def forest(fold: Fold) -> None:
    """The two-step forest on the patch net's heatmaps."""
    end_to_end = fold.end_to_end(fold.workdir / name("end to end" + ", random weights" * bool(fold.start), *fold.key))
    two_step.two_step(end_to_end, fold.folder, patch_run=fold.patches(), min_split=10)


def whole(fold: Fold, begin: Path | None = None) -> None:
    """End to end without patches, in as many updates as the patch net and the network from it have together."""
    config, patch = fold.configs()
    if not begin:  # the Dense layer is new, too
        config.stages.stage1.update(learn=("head/.*",), freeze=("trunk/.*",), learning_rate=3e-3)
        begin = fold.start(fold, patch) if fold.start else None
    if begin:
        config.init_from, config.model.pretrained = str(begin), ""
    # The trunk's rate is the recipe's: with ten times that, its features died, and all images had one score.
    config.stages.stage2.epochs = config.stages.stage2.epochs * 10 // 3
    finish(config, fold.folder)


def whole_from_phantom(fold: Fold) -> None:
    """Fine-tuned from image labels alone, from a network of the digital phantom."""
    seed = fold.key[1]
    phantom = Fold(fold.source, (0, seed, 0), fold.workdir, fold.workdir / name("digital phantom", seed), digital)
    whole(fold, phantom.end_to_end(phantom.folder))


def phantom_from_film(fold: Fold) -> None:
    """The digital phantom, fine-tuned from image labels alone, from the fold's network of films."""
    folder = fold.workdir / name("end to end", *fold.key)
    whole(fold, Fold(fold.source, fold.key, fold.workdir, folder).end_to_end(folder))


def linear(fold: Fold) -> None:
    """A linear discriminant of the pooled output of block 10, frozen, flips averaged."""
    config, _ = fold.configs()
    fold.folder.mkdir(exist_ok=True)
    config = run.check(config)
    data, task = run.dataset(config, fold.folder), tasks.of(config.model.task)
    model = task.network(config.model)
    variables = start.variables(config, model, task.sizes(config, config.data), None)
    if not config.model.pretrained:
        variables["batch_stats"] = _statistics(config, variables, data)

    @jax.jit
    def pooled(pixels: jax.Array) -> jax.Array:
        x = classifiers.as_input(pixels, data.facts["mean"], config.model.channels)
        both = [model.apply(variables, flipped)[1]["block10"].mean((1, 2)) for flipped in (x, x[:, ::-1])]
        return (both[0] + both[1]) / 2

    features = {
        split: np.concatenate([pooled(batch["image"]) for batch in _batches(data, split, config.eval_batch)])
        for split in ("train", "test")
    }
    features = {split: rows[: len(data.labels(split))] for split, rows in features.items()}
    discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    discriminant.fit(features["train"], data.labels("train"))
    scores = discriminant.predict_proba(features["test"])
    write(fold.folder, {"scores": scores, "label": data.labels("test")}, data)


def exams(fold: Fold, heatmaps: bool) -> None:
    """A patient's two MLO films through the columns of Wu et al. 2019, view-wise, at half resolution.

    With one angle the joint network is the view-wise one. The heatmaps are those of the film trunk, which learns
    patches with the classes of Wu et al.
    """
    films, patch = fold.configs()
    config = exam.get_config(f"view-wise{'+heatmaps' if heatmaps else ''}-scratch")
    config.seed = fold.key[1]
    config.data.update(
        source=str(_halved(fold)), data_dir=films.data.data_dir, prepare=True, workers=0, patch_size=112, iterations=25
    )
    config.exam.update(sizes={"CC": (480, 256), "MLO": (480, 256)}, noise=10, patch=112, stride=56)
    config.model.update(angles=("MLO",), width=8, blocks=(1, 1, 1, 1, 1))
    config.monitor = "last"
    config.stages.stage1.update(learning_rate=1e-3, schedule="cosine", epochs=12, patience=0)
    if heatmaps:
        theirs = start.part(config, "patch", fold.workdir)
        del config.patch
        theirs.data.prepare = True
        theirs.update(batch=32, eval_batch=32, monitor="last", stages=patch.stages)
        theirs.model.update(trunk=films.model.trunk, width=32, dropout=0.3, pretrained="imagenet")
        theirs.augment.update(rotation=15.0)
        config.patch_run = str(finish(theirs, fold.workdir / name("exam patches", *fold.key)))
    _write_breasts(fold, finish(config, fold.workdir / f"{fold.folder.name}_run"), "test_random10")


def pairs(fold: Fold) -> None:
    """A breast and the other one of its patient through the network of two views, which starts from `trained`'s."""
    config = two_view.get_config("film")
    config.source, config.data.data_dir = str(fold.source), str(fold.workdir / "data")
    config.seed, config.gallery = fold.key[1], 0
    del config.single_view
    config.init_from = str(fold.end_to_end(fold.workdir / name("end to end", *fold.key)))
    config.model.pretrained = ""
    _write_breasts(fold, finish(config, fold.workdir / f"{fold.folder.name}_run"), "test_flips")


def _write_breasts(fold: Fold, of_run: Path, split: str) -> None:
    """Write a run's scores of the test breasts as those of their only films."""
    breasts = pd.read_csv(of_run / "predictions" / f"{split}.csv", dtype={"patient_id": str})
    p = {(row.patient_id, row.laterality): row.p_malignant for row in breasts.itertuples()}
    fold.folder.mkdir(exist_ok=True)
    data = run.dataset(run.check(fold.configs()[0]), fold.folder)
    scores = np.array([p[row["patient_id"], row["laterality"]] for row in data.table("test")])
    write(fold.folder, {"scores": np.stack([1 - scores, scores], axis=1), "label": data.labels("test")}, data)


def _halved(fold: Fold) -> Path:
    """The fold's manifest of films and masks of half the height and width, as PNG: exams are not resized."""
    folder = fold.workdir / "halved"
    target = folder / fold.source.name
    if target.is_file():
        return target
    folder.mkdir(exist_ok=True)
    rows = pd.read_csv(fold.source, dtype=str, keep_default_na=False)
    for column in ("image", "mask"):
        for k, cell in rows[column].items():
            if not cell:
                continue
            path = folder / f"{Path(cell).stem}.png"
            if not path.is_file():
                given = fold.source.parent / cell
                pixels = dicom.read_mammogram(given).pixels if column == "image" else cv2.imread(str(given), 0)
                kind = cv2.INTER_AREA if column == "image" else cv2.INTER_NEAREST
                cv2.imwrite(str(path), cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=kind))
            rows.loc[k, column] = path.name
    rows.to_csv(target, index=False)
    return target


@dataclass(frozen=True)
class Arm:
    """What an arm does with a fold, its networks' change and start, and the arm that it is compared with (`minus`)."""

    score: Callable[[Fold], None]
    minus: str = ""
    change: Change | None = None
    start: Callable[[Fold, ConfigDict], Path] | None = None


WHOLE = "whole image from ImageNet, no patches"
ARMS: dict[str, Arm] = {
    "patch net slid": Arm(slid),
    "end to end": Arm(trained, "patch net slid"),
    "two-step forest": Arm(forest, "patch net slid"),
    WHOLE: Arm(whole, "end to end"),
    "whole image from random weights, no patches": Arm(whole, WHOLE, random, random_start),
    "patch net slid, random weights": Arm(slid, "patch net slid", random, random_start),
    "end to end, random weights": Arm(trained, "end to end", random, random_start),
    "two-step forest, random weights": Arm(forest, "two-step forest", random, random_start),
    "frozen ImageNet features, linear": Arm(linear, "end to end"),
    "frozen random features, linear": Arm(linear, "frozen ImageNet features, linear", random),
    "patch net slid, recipe before": Arm(slid, "patch net slid", before),
    "end to end, recipe before": Arm(trained, "end to end", before),
    "end to end, film beside the breast kept": Arm(trained, "end to end", beside),
    "strong augmentation": Arm(slid, "patch net slid", strong),
    "end to end, strong augmentation": Arm(trained, "end to end", strong),
    "Lite 2": Arm(slid, "patch net slid", lite2),
    "768 x 432": Arm(slid, "patch net slid", larger),
    "one type of lesion": Arm(slid, "patch net slid", one_type),
    "end to end, one type of lesion": Arm(trained, "end to end", one_type),
    "turned tissue first": Arm(slid, "patch net slid", quarters, turned),
    "phantom first": Arm(slid, "patch net slid", of_phantom, from_phantom),
    "weights of all seeds averaged": Arm(averaged, "end to end"),
    "end to end, half of the patients": Arm(trained, "end to end", half),
    "end to end, a quarter of the patients": Arm(trained, "end to end", quarter),
    "no patches, half of the patients": Arm(whole, "end to end, half of the patients", half),
    "no patches, a quarter of the patients": Arm(whole, "end to end, a quarter of the patients", quarter),
    "fine-tuned from the digital phantom": Arm(whole_from_phantom, "end to end"),
    "exams of two films": Arm(partial(exams, heatmaps=False), "end to end"),
    "exams of two films, heatmaps": Arm(partial(exams, heatmaps=True), "exams of two films"),
    "both breasts in one network": Arm(pairs, "end to end, minus the other breast"),
    "digital phantom from ImageNet": Arm(whole, "", digital),
    "digital phantom from film": Arm(phantom_from_film, "digital phantom from ImageNet", digital),
}
AVERAGED = {f"{arm}, seeds averaged": arm for arm in ("patch net slid", "end to end")}
"""Rows of the mean of all seeds' scores, beside the mean of their AUCs."""
SUBTRACTED = {"end to end, minus the other breast": "end to end"}
"""Rows of an arm's scores minus those of the other breast, for arms that are compared with them."""
