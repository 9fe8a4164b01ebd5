"""Anyone's mammograms, listed in a CSV (docs/data.md)."""

from pathlib import Path

from mammojax.data import manifest
from mammojax.data.builders.mammograms import MammogramBuilder


class Manifest(MammogramBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The images of a manifest, split by its own column, else 85:15 and 90:10 by patient as in Shen et al. 2019."""

    def _table(self) -> tuple[manifest.Table, dict[str, str]]:
        table = manifest.read_manifest(Path(self.builder_config.source))
        drawn = manifest.three_way(table.images, self.builder_config.seed)
        named = {image.patient_id: image.split for image in table.images if image.split}
        for image in table.images:
            if image.split and named[image.patient_id] != image.split:
                raise manifest.BadManifest(
                    f"the manifest's split column puts one patient in {image.split} and {named[image.patient_id]} "
                    f"(see {image.image}); give all images of a patient the same split."
                )
        if named and len(named) < len(drawn):
            raise manifest.BadManifest(
                "the manifest's split column is filled for some patients only; fill it for all or leave it empty."
            )
        return table, named or drawn
