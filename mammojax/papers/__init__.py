"""Published tables as CSV, ours beside them."""
