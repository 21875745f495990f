"""What every stage stands on: the artifact it leaves, progress, workers, the device."""
