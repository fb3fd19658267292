"""`make demo`: from an empty cluster to a model that is registered, loaded back and predicts."""
