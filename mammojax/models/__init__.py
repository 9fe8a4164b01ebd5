"""The networks, in flax.linen: a file a network; they know nothing of data, training or evaluation."""
