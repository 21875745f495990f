"""What a finished run gives to other programs, in their own formats."""
