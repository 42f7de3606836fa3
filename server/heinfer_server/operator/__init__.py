"""What an operator's commands do with the folder of a service's keys, whose user they need not be."""
