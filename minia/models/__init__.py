"""Networks and extractors: pixels in, local features out."""
