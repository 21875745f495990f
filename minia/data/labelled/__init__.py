"""Labelled galaxies for training: catalogues, tables, the torch Dataset."""
