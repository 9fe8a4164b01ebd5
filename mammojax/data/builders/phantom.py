"""The phantom: synthetic mammograms written to disk as CBIS-DDSM is, then read by the very same code."""

from mammojax.data.builders.cbis_ddsm import CbisDdsm


class Phantom(CbisDdsm, skip_registration=True):  # type: ignore[call-arg]
    """CBIS-DDSM's reader on the tree that mammojax.data.phantom wrote."""
