"""The model on the device: its file, what it says of itself, and how it is run."""
