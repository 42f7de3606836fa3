"""Bytes: bundles, manifests, frames, and SEAL's own format; every reader takes them for hostile."""
