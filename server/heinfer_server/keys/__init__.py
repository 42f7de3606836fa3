"""Clients' evaluation keys: kept by content, in memory or on disk, registered whole or in pieces."""
