"""DELF: the network, its weights, its local features, its exported form."""
