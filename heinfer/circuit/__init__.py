"""The program over ciphertexts: operations, levels, scales, noise, counts, and passes over it."""
