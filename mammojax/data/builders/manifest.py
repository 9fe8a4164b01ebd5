"""Anyone's mammograms, listed in a CSV (docs/data.md)."""

from mammojax.data import identity, manifest
from mammojax.data.builders.mammograms import MammogramBuilder
from mammojax.data.recipe import Recipe
from mammojax.errors import BadManifest


class Manifest(MammogramBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The images of a manifest, split by its own column, else 85:15 and 90:10 by patient as in Shen et al. 2019."""

    def _table(self) -> tuple[manifest.Table, dict[str, str]]:
        recipe: Recipe = self.builder_config.recipe
        table = manifest.read_manifest(recipe.origin, manifest.read_map(recipe.label_map), recipe.data_dir)
        leave_out_copies(table)
        patients = {image.patient_id for image in table.images}
        if len(patients) == 1 < len(table.images) and all(image.drawn_as for image in table.images):
            raise BadManifest(
                f"the manifest names no patients, and by exam_id and the headers' PatientID its {len(table.images)} "
                "images are all of one, which gives no split; fill the column patient_id."
            )
        drawn = manifest.three_way(table.images, recipe.seed)
        named = {image.patient_id: image.split for image in table.images if image.split}
        for image in table.images:
            if image.split and named[image.patient_id] != image.split:
                of_header = ", as the DICOM header names the patient," if image.drawn_as else ""
                raise BadManifest(
                    f"the manifest's split column puts one patient in {image.split} and {named[image.patient_id]} "
                    f"(see {image.image}){of_header}; give all images of a patient the same split."
                )
        if named and len(named) < len(drawn):
            raise BadManifest(
                "the manifest's split column is filled for some patients only; fill it for all or leave it empty."
            )
        return table, named or drawn


def leave_out_copies(table: manifest.Table) -> None:
    """See that no picture is two patients': files with the same bytes are one, or nobody's where rows disagree.

    A patient who is only named after the file is nobody, so a copy of his goes and the other image stays.
    """
    by_path = {image.path: image for image in table.images}
    gone: dict[str, str] = {}
    for paths in identity.copies(by_path):
        images = [by_path[path] for path in paths]
        if len({image.patient_id for image in images}) == 1:
            continue
        known = [image for image in images if image.patient_id != image.image]
        if len({image.patient_id for image in known}) > 1 or len({image.label for image in images}) > 1:
            for image, other in zip(images, [*images[1:], images[0]], strict=True):
                gone[image.image] = f"its file is the same as {other.image}, whose patient or pathology is another"
        else:
            kept = known or images[:1]
            gone |= {
                i.image: f"its file is the same as {kept[0].image}, which is used" for i in images if i not in kept
            }
    table.rejected += gone.items()
    table.images = [image for image in table.images if image.image not in gone]
