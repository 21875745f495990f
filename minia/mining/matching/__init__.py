"""The matching stage: which images hold which structures, and by which keypoints."""
