"""A listener of several processes: one accepts connections and knows the places, the others serve associations."""
