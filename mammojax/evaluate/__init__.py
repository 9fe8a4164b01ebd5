"""From a checkpoint and images to numbers and pictures."""
