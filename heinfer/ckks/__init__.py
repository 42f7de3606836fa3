"""CKKS itself: parameters and their security, the secret side, the evaluation side, the border to SEAL."""
