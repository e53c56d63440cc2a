"""Model packages: the card, the network and what runs it, preprocessing, and the folders that packages lie in."""
