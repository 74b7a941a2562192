"""Parts of networks that the literature on facial expressions names, for ``training.models``."""
