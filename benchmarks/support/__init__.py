"""What benchmarks share: records, what is measured, the unit of time. Nothing here imports a benchmark."""
