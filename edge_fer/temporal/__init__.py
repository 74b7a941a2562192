"""From the predictions of single frames to what a face shows over time."""
