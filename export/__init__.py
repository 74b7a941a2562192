"""From a Keras model to the bundle that runs on the device. Stays in the repository: not in the wheel."""
