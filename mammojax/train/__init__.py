"""From a config and batches to checkpoints."""
