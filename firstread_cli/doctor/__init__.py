"""``firstread doctor``: one module a subject."""
