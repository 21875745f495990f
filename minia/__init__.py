"""minIA: discover the visual structures that recur across an image collection, without labels."""

__version__ = "0.1.0"
