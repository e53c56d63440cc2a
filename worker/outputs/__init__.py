"""Results out: DICOM objects, and deliveries to whoever wants to know."""
