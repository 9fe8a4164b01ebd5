"""From DICOM to batches."""
