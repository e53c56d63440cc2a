"""DICOM objects of a result: structured report, segmentation, secondary capture."""
