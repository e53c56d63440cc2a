"""Who gets results: the site's file of destinations, and whether they can be reached."""
