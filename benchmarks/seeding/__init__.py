"""A believable log of any size, sealed as the service seals, to measure queries on."""
