"""Training and evaluation of expression models with Keras 3. Stays in the repository: not in the wheel."""
