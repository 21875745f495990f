"""The simulated galaxy survey, with the truth of what was drawn."""
