"""Tests that need only the Kubernetes API: etcd and kube-apiserver run as processes of the test session."""
