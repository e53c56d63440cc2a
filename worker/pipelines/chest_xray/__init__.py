"""Chest X-ray: pneumonia, its kind, COVID-19."""
