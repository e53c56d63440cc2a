"""Results out: DICOM objects, and deliveries to destinations."""
