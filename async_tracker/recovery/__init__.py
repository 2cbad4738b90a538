"""What is done for dead instances: one instance sweeps, finds what they left, and gives it back or quarantines it."""
