"""`make demo`: from an empty cluster to a registered model that is loaded and predicts."""
