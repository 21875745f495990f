"""Images: listed, read, simulated, labelled."""
