"""From keypoints to structures: features, vocabulary, words, mining, matching, report."""
