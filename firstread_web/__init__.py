"""The worklist page: what the views say, and what a person does about it, in a browser."""
