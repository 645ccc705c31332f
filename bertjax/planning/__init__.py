"""What a training run needs of devices that need not be there: memory, communication, time."""
