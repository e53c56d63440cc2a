"""Skin lesions: HAM10000 as it comes, the question asked again, and figures of its own."""
