"""Networks of torchvision: imported at their own size, and run encrypted at that of CIFAR's images."""
