"""The DICOM door: associations, C-STORE, and the status that answers it."""
