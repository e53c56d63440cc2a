"""From rows of instances to closed revisions, and the doorbell."""
