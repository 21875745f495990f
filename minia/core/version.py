"""The version of minIA."""

__version__ = "0.1.0"
