"""From images to structures, one folder a stage."""
