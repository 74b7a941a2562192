"""Data sets and figures, for training and export alike. Stays in the repository; needs neither Keras nor TensorFlow."""
