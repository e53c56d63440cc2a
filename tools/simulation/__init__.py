"""How long studies wait in a hospital group: a simulation of arrivals, claims and workers with measured costs."""
