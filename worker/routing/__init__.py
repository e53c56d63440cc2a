"""Which pipelines a revision is the business of, and whether an earlier result still stands."""
