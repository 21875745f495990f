"""Where images come from: folders, catalogues and the simulated survey."""
