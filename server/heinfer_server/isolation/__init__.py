"""What a worker process gives up before it sees a client's first byte: rights, files, network, other processes."""
