"""Images and evidence on disk or in an object store, below a home that is closed to others."""
