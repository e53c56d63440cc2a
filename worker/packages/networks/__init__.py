"""Networks of the shipped packages, in Keras for any backend."""
