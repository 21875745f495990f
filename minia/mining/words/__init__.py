"""The words stage: the bag of words of every image."""
