"""What happens between the steps of a training: one file a callback."""
