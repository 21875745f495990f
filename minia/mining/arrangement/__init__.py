"""Where parts are: words in an arrangement, and how likely chance alone makes them."""
