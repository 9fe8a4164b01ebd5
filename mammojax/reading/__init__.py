"""The reading room: `mammojax view` shows mammograms, what a run says of them, and takes what a reader says."""
