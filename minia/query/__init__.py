"""What a finished run knows of new images: their words and structures, the run's images most like them, and where."""
