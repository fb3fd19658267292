"""The real operator process against a real control plane, with simulated nodes and pods.

Kubernetes calls tests without a kubelet integration tests. Here etcd, kube-apiserver, kube-controller-manager,
kube-scheduler and Postgres are real processes on loopback, and kwok reports the status of pods that do not run.
Everything that needs MLflow, S3 or a kubelet is tested in tests/e2e.
"""
