"""Sampled Min-Hashing: sets of words that co-occur."""
