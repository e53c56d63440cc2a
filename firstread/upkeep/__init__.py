"""Retention, drift and the heartbeat."""
