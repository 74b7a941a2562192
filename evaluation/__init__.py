"""Data sets and metrics, for training and export alike. Stays in the repository; needs neither Keras nor TensorFlow."""
