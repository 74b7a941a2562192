"""The systems of "Deep Facial Expression Recognition: A Survey" (Li & Deng, arXiv 1804.08348), one by one, measured."""
