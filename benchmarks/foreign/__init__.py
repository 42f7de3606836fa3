"""Networks as people bring them: plain torch layers, ReLU or tanh, max pooling; their data, their training."""
