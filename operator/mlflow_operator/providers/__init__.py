"""What speaks to the world outside the cluster's API. Every call has a time-out; no call is retried here, because
the queue retries whole reconciles."""
