"""What was: histograms that merge, the counters of each minute, and the series that are made of them."""
