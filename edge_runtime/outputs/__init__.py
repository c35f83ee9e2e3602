"""One sink for each channel, and the rule by which a delivery is tried again."""
