"""What can be asked: one look at the namespace, and the records made of it."""
