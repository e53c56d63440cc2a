"""Head CT: readers, package, figures, evaluation."""
