"""The report stage: metrics, panels and the page."""
