"""The structures stage: co-occurring sets by Sampled Min-Hashing, linked into structures."""
