"""One job, from its claim to the commit of its results."""
