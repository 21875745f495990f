"""The features stage: keypoints and descriptors of every image, in shards."""
