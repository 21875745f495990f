"""The vocabulary stage: visual words by k-means, and the word of every keypoint."""
