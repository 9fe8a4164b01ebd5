"""TFDS builders: CBIS-DDSM, anyone's manifest, and the phantom. None of them needs TensorFlow."""
