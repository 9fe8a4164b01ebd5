"""The phantom: synthetic mammograms written to disk as CBIS-DDSM is, then read by the very same code."""

from mammojax.data.builders.cbis_ddsm import CbisDdsm
from mammojax.data.builders.manifest import Manifest


class Phantom(CbisDdsm, skip_registration=True):  # type: ignore[call-arg]
    """CBIS-DDSM's reader on the tree that mammojax.data.phantom wrote."""


class PhantomExams(Manifest, skip_registration=True):  # type: ignore[call-arg]
    """The manifest's reader on the exams that mammojax.data.phantom_exams wrote."""
