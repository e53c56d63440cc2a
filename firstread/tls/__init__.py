"""TLS by files: our certificate as a server, what we show and trust as a client."""
