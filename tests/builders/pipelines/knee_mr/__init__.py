"""A toy pipeline: a tear of the meniscus on MR of the knee."""
