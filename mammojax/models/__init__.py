"""The networks, in flax.linen, one file each; they know nothing of data, training or evaluation."""
