"""For developers; not part of the wheel."""
