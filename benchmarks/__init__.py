"""Measurements that documents quote: ``python -m benchmarks NAME --json FILE`` writes a list of flat records."""
