"""Head CT: intracranial hemorrhage."""
