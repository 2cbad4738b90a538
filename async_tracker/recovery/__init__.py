"""What is done for the dead: who sweeps, what they left, given back or quarantined, buried."""
