"""Polynomials in place of activations: found, fitted to what they see, and tuned with the old network as teacher."""
