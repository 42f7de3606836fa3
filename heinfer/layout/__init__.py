"""Where the elements of a tensor sit in the slots of ciphertexts."""
