"""People act on workers: an order is asked, waited for, and taken back where it is not answered."""
