"""Extractors: keypoints and descriptors of one image."""
