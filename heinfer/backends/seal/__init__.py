"""The SEAL backend: circuits on SEAL through its Python bindings, TenSEAL, by which requests and settings name it."""
